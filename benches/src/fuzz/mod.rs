//! Fuzzing on stable Rust: seeded, repeatable, over a corpus in files.
//!
//! A run takes inputs from the corpus, changes them with the [`mutate`] that its target names, and calls the target. An
//! input whose outcome was not seen before joins the inputs to change further; that takes the place of the coverage
//! that an instrumented build would report. `benches/fuzz` builds the same targets for cargo-fuzz, which has it.
//!
//! It runs in one thread and asks the clock only when to stop: the same seed gives the same inputs in the same order.

pub mod mutate;
mod node;
mod path;
pub mod targets;

#[path = "../../../pipeline/tests/kit/frames.rs"]
mod frames;
#[path = "../../../pipeline/tests/kit/oracle.rs"]
mod oracle;

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use mutate::Random;
use targets::Target;

/// Inputs that are kept in memory at most.
const KEPT: usize = 4096;

thread_local! {
    /// The input that the target is working on, for the panic hook.
    static CURRENT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long.
    pub duration: Duration,
    /// Where the sequence of inputs starts.
    pub seed: u64,
    /// Files to start from. Inputs with a new outcome are written here as well if `keep`.
    pub corpus: PathBuf,
    /// Write to the corpus.
    pub keep: bool,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Inputs that the target was called with.
    pub executions: u64,
    /// Outcomes that were told apart.
    pub outcomes: usize,
}

/// Run `target`; `progress` is called about once a second. A crash ends the process, after the input was written to a
/// file: see [`report_crashes`].
///
/// # Errors
/// The corpus cannot be read or written.
pub fn run(target: &Target, plan: &Plan, progress: &mut dyn FnMut(Summary, Duration)) -> Result<Summary> {
    let mut inputs = read_corpus(&plan.corpus)?;
    let mut seen = HashSet::new();
    for input in &inputs {
        seen.insert(call(target, input));
    }
    if inputs.is_empty() {
        inputs.push(Vec::new());
    }
    let mut random = Random::new(plan.seed);
    let mut summary = Summary { executions: inputs.len() as u64, outcomes: seen.len() };
    let (start, mut told) = (Instant::now(), 0);
    let mut input = Vec::new();
    loop {
        // The clock costs more than a target.
        if summary.executions.is_multiple_of(1024) {
            let elapsed = start.elapsed();
            if elapsed.as_secs() > told {
                told = elapsed.as_secs();
                progress(summary, elapsed);
            }
            if elapsed >= plan.duration {
                return Ok(summary);
            }
        }
        let (first, second) = (random.below(inputs.len()), random.below(inputs.len()));
        input.clone_from(&inputs[first]);
        (target.mutate)(&mut input, &inputs[second], &mut random);
        let outcome = call(target, &input);
        summary.executions += 1;
        if seen.insert(outcome) {
            summary.outcomes = seen.len();
            if plan.keep {
                write_input(&plan.corpus, &input)?;
            }
            if inputs.len() < KEPT {
                inputs.push(input.clone());
            }
        }
    }
}

/// Call a target with one input, remembered for the panic hook.
pub fn call(target: &Target, input: &[u8]) -> u64 {
    CURRENT.with_borrow_mut(|current| {
        current.clear();
        current.extend_from_slice(input);
    });
    (target.run)(input)
}

/// Call the target of this name; for cargo-fuzz, which has a driver of its own.
///
/// # Panics
/// There is no such target, or a promise is broken.
pub fn run_named(name: &str, input: &[u8]) {
    let target = targets::TARGETS.iter().find(|target| target.name == name).expect("a target of that name");
    (target.run)(input);
}

/// From now on a panic first writes the input at hand to a file in the current directory and says how to repeat it.
pub fn report_crashes(target: &'static str) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        let input = CURRENT.with_borrow(Clone::clone);
        let name = format!("fuzz-{target}-{}", name_of(&input));
        match std::fs::write(&name, &input) {
            Ok(()) => eprintln!(
                "fuzz: {target}: crashed; the input is in {name}; repeat it with\n  \
                 cargo run -p benches --bin fuzz -- {target} --input {name}"
            ),
            Err(error) => eprintln!("fuzz: {target}: crashed; {name}: {error}; the input is {input:02x?}"),
        }
    }));
}

fn name_of(input: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn write_input(corpus: &Path, input: &[u8]) -> Result<()> {
    let path = corpus.join(name_of(input));
    std::fs::write(&path, input).with_context(|| path.display().to_string())
}

/// All files of a corpus in the order of their names, so that a run can be repeated.
fn read_corpus(corpus: &Path) -> Result<Vec<Vec<u8>>> {
    let entries = std::fs::read_dir(corpus).with_context(|| corpus.display().to_string())?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.is_file());
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).with_context(|| path.display().to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus(target: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
    }

    #[test]
    fn every_target_runs_over_its_corpus_and_a_while_beyond() {
        for target in targets::TARGETS {
            let plan = Plan { duration: Duration::from_millis(200), seed: 1, corpus: corpus(target.name), keep: false };
            let summary = run(target, &plan, &mut |_, _| {}).unwrap();
            assert!(summary.executions > 100 && summary.outcomes > 1, "{}: {summary:?}", target.name);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let target = &targets::TARGETS[0];
        let inputs = |seed| {
            let corpus = read_corpus(&corpus(target.name)).unwrap();
            let mut random = Random::new(seed);
            let mut input = corpus[0].clone();
            (0..100).for_each(|_| (target.mutate)(&mut input, &corpus[1], &mut random));
            input
        };
        assert_eq!(inputs(7), inputs(7));
        assert_ne!(inputs(7), inputs(8));
    }
}
