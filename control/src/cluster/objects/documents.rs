//! From text to documents: YAML of many documents, JSON, lists of either. Each document becomes the JSON of one object.
//!
//! What a hostile text may cost is bounded: its size, the size of a document, and, for YAML, nesting and what aliases
//! expand to (the "billion laughs").

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Octets of one text (a file, or what one `apply` sends of a file) at most: 250,000 endpoints fit.
pub(crate) const TEXT_LIMIT: usize = 64 << 20;
/// Octets of a YAML document at most. A large cluster comes as JSON, or as many documents.
const YAML_LIMIT: usize = 16 << 20;
/// Octets of one object at most. An API server takes 1.5 MiB (the limit of etcd).
const OBJECT_LIMIT: usize = 4 << 20;
/// Levels of YAML at most; JSON's reader has a limit of 128.
const DEPTH_LIMIT: usize = 100;

/// The documents of a text: the JSON of an object each, or what is wrong with the document and which it is.
pub(crate) fn documents(text: &str) -> Vec<Result<Cow<'_, str>, String>> {
    if text.len() > TEXT_LIMIT {
        return vec![Err(format!("text of {} octets: may have {TEXT_LIMIT}", text.len()))];
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    if text.trim_start().starts_with('{') && json(text, &mut found).is_ok() {
        return found;
    }
    // Not JSON, or broken: YAML says where, document by document.
    found.clear();
    for (i, document) in split(text).enumerate() {
        if is_empty(document) {
            continue;
        }
        if let Err(why) = yaml(document, &mut found) {
            found.push(Err(format!("document {}: {why}", i + 1)));
        }
    }
    found
}

/// One or more JSON documents, one after another.
fn json<'a>(text: &'a str, found: &mut Vec<Result<Cow<'a, str>, String>>) -> Result<(), serde_json::Error> {
    for document in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        items(document?.get(), found);
    }
    Ok(())
}

fn yaml<'a>(document: &str, found: &mut Vec<Result<Cow<'a, str>, String>>) -> Result<(), String> {
    if document.len() > YAML_LIMIT {
        return Err(format!("{} octets: a YAML document may have {YAML_LIMIT}", document.len()));
    }
    let options = serde_saphyr::options! {
        with_snippet: false,
        leading_zero_numbers_as_strings: true,
        // YAML 1.2: `y` and `on` are text.
        strict_booleans: true,
        budget: serde_saphyr::budget! { max_depth: DEPTH_LIMIT },
    };
    let value: serde_json::Value =
        serde_saphyr::from_str_with_options(document, options).map_err(|e| one_line(&e.to_string()))?;
    let json = serde_json::to_string(&value).map_err(|e| e.to_string())?;
    drop(value);
    let mut own = Vec::new();
    items(&json, &mut own);
    found.extend(own.into_iter().map(|item| item.map(|json| Cow::Owned(json.into_owned()))));
    Ok(())
}

/// The object that a document is, or the objects of the list that it is.
fn items<'a>(json: &'a str, found: &mut Vec<Result<Cow<'a, str>, String>>) {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(default)]
        kind: Option<&'a RawValue>,
        #[serde(borrow, default)]
        items: Option<Vec<&'a RawValue>>,
    }
    let list: Option<List<'_>> = serde_json::from_str(json).ok();
    match list {
        // `List`, and what an API server sends: `ServiceList`.
        Some(List { kind: Some(kind), items }) if kind.get().ends_with("List\"") => {
            found.extend(items.unwrap_or_default().into_iter().map(|item| bounded(item.get())));
        }
        _ => found.push(bounded(json)),
    }
}

fn bounded(json: &str) -> Result<Cow<'_, str>, String> {
    match json.len() {
        0..=OBJECT_LIMIT => Ok(Cow::Borrowed(json)),
        len => Err(format!("object of {len} octets ({}): may have {OBJECT_LIMIT}", beginning(json))),
    }
}

/// Documents of a YAML stream. A line that begins with `---` cannot be part of a document's content (YAML 1.2.2, 9.1.2).
fn split(text: &str) -> impl Iterator<Item = &str> {
    let is_marker = |line: &str| line.strip_prefix("---").is_some_and(|rest| rest.trim_start().len() < rest.len());
    let mut starts = vec![0];
    let mut at = 0;
    let mut ends = Vec::new();
    for line in text.split_inclusive('\n') {
        if is_marker(line) || line == "---" {
            ends.push(at);
            starts.push(at + 3);
        }
        at += line.len();
    }
    ends.push(text.len());
    starts.into_iter().zip(ends).map(|(start, end)| text.get(start..end).unwrap_or_default())
}

/// Nothing but comments, directives and the end marker.
fn is_empty(document: &str) -> bool {
    document.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with(['#', '%']) || line == "...")
}

fn one_line(text: &str) -> String {
    beginning(text.lines().next().unwrap_or_default())
}

fn beginning(text: &str) -> String {
    text.chars().take(120).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An object as it is kept: compact, and with the namespace that it is in.
pub(crate) fn original(json: &str, namespace: Option<&str>) -> Box<str> {
    let placed = namespace.and_then(|namespace| in_namespace(json, namespace));
    placed.map_or_else(|| compact(json), |json| compact(&json))
}

/// An object's JSON with `metadata.namespace` said. Only that part of it is written anew.
fn in_namespace(json: &str, namespace: &str) -> Option<String> {
    let mut object: BTreeMap<&str, &RawValue> = serde_json::from_str(json).ok()?;
    let mut metadata: BTreeMap<&str, &RawValue> = serde_json::from_str(object.get("metadata")?.get()).ok()?;
    let namespace = serde_json::value::to_raw_value(namespace).ok()?;
    metadata.insert("namespace", &namespace);
    let metadata = serde_json::value::to_raw_value(&metadata).ok()?;
    object.insert("metadata", &metadata);
    serde_json::to_string(&object).ok()
}

/// JSON without white space between its words. It must be JSON.
pub(crate) fn compact(json: &str) -> Box<str> {
    let mut out = String::with_capacity(json.len());
    let (mut start, mut in_string, mut escaped) = (0, false, false);
    for (at, byte) in json.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b' ' | b'\t' | b'\r' | b'\n' if !in_string => {
                out.push_str(json.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
    }
    out.push_str(json.get(start..).unwrap_or_default());
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Result<String, String>> {
        documents(text).into_iter().map(|document| document.map(Cow::into_owned)).collect()
    }

    #[test]
    fn documents_lists_and_json_come_to_the_same() {
        let wanted = vec![Ok(r#"{"a":1,"kind":"X"}"#.to_owned()), Ok(r#"{"b":[2],"kind":"Y"}"#.to_owned())];
        for text in [
            "a: 1\nkind: X\n---\nb: [2]\nkind: Y\n",
            "%YAML 1.2\n--- # first\na: 1\nkind: X\n...\n---\n# nothing\n---\nb:\n- 2\nkind: Y",
            "---\r\na: 1\r\nkind: X\r\n---\r\nkind: Y\r\nb: [2]\r\n",
            "kind: List\nitems:\n- {kind: X, a: 1}\n- {kind: Y, b: [2]}\n",
            r#"{"kind":"List","apiVersion":"v1","items":[{"a":1,"kind":"X"},{"b":[2],"kind":"Y"}]}"#,
            "\u{feff}{\"a\":1,\"kind\":\"X\"}\n{\"b\":[2],\"kind\":\"Y\"}\n",
            "{\"a\":1,\"kind\":\"X\"}\n---\n{\"b\":[2],\"kind\":\"Y\"}\n",
        ] {
            assert_eq!(read(text), wanted, "{text}");
        }
        assert_eq!(read("\n# nothing\n---\n---\n"), []);
    }

    #[test]
    fn a_broken_document_is_named_and_the_others_are_read() {
        let found = read("a: 1\n---\nb: [\n---\nc: 3\n");
        assert_eq!((&found[0], &found[2]), (&Ok("{\"a\":1}".into()), &Ok("{\"c\":3}".into())));
        assert!(found[1].as_ref().unwrap_err().starts_with("document 2: "), "{found:?}");
        assert!(read("{\"kind\": \"X\", ")[0].is_err());
        assert!(read("a: 1\na: 2\n")[0].is_err(), "a key that is there twice");
    }

    #[test]
    fn bombs_are_refused_in_time_and_in_one_line() {
        let mut laughs = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let below = format!("*a{}", n - 1);
            laughs += &format!("a{n}: &a{n} [{}]\n", [&below[..]; 10].join(", "));
        }
        let deep_yaml = format!("a: {}", "[".repeat(100_000));
        let deep_json = format!("{{\"a\":{}", "[".repeat(100_000));
        let long_yaml = format!("a: {}\n", "x".repeat(20 << 20));
        let long_json = format!("{{\"a\":\"{}\"}}", "x".repeat(10 << 20));
        for text in [laughs, deep_yaml, deep_json, long_yaml, long_json, "x".repeat(TEXT_LIMIT + 1)] {
            let found = documents(&text);
            let [Err(why)] = &found[..] else { panic!("{} octets: taken", text.len()) };
            assert!(why.len() < 300 && !why.contains('\n'), "{why}");
        }
    }

    #[test]
    fn compact_json_keeps_what_stands_in_strings() {
        let json = "{ \"a b\" : [ 1 ,\n\t\"x \\\" y\\\\\" ] }";
        assert_eq!(&*compact(json), r#"{"a b":[1,"x \" y\\"]}"#);
    }
}
