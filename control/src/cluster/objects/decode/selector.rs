//! Label selectors, in one form: equal selectors are equal, however they were written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::{Checked, check};
use crate::cluster::model::{Requirement, Selector, Test, Text};
use crate::cluster::objects::Texts;

/// Read a selector, with the rules of the API server (`ValidateLabelSelector`).
pub(super) fn selector(field: &str, selector: &LabelSelector, texts: &mut Texts) -> Checked<Selector> {
    let labels = texts.labels(selector.match_labels.iter().flatten());
    check::labels(&format!("{field}.matchLabels"), &labels)?;
    let of_label = |(key, value)| Requirement { key, test: Test::In(vec![value]) };
    let mut requirements: Vec<_> = labels.into_iter().map(of_label).collect();
    for (i, expression) in selector.match_expressions.iter().flatten().enumerate() {
        requirements.push(requirement(&format!("{field}.matchExpressions[{i}]"), expression, texts)?);
    }
    requirements.sort_unstable();
    requirements.dedup();
    Ok(Selector(requirements))
}

fn requirement(field: &str, expression: &LabelSelectorRequirement, texts: &mut Texts) -> Checked<Requirement> {
    let LabelSelectorRequirement { key, operator, values } = expression;
    let values = values.as_deref().unwrap_or_default();
    let test = match operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            return Err(format!("{field}.values: must be given for operator In or NotIn"));
        }
        "In" => Test::In(sorted(field, values, texts)?),
        "NotIn" => Test::NotIn(sorted(field, values, texts)?),
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let rule = "may not be given for operator Exists or DoesNotExist";
            return Err(check::fault(format_args!("{field}.values"), values.join(","), rule));
        }
        "Exists" => Test::Exists,
        "DoesNotExist" => Test::DoesNotExist,
        other => {
            let rule = "must be In, NotIn, Exists or DoesNotExist";
            return Err(check::fault(format_args!("{field}.operator"), other, rule));
        }
    };
    check::label_key(&format!("{field}.key"), key)?;
    Ok(Requirement { key: texts.of(key), test })
}

fn sorted(field: &str, values: &[String], texts: &mut Texts) -> Checked<Vec<Text>> {
    for (i, value) in values.iter().enumerate() {
        check::label_value(&format!("{field}.values[{i}]"), value)?;
    }
    let mut sorted: Vec<_> = values.iter().map(|value| texts.of(value)).collect();
    sorted.sort_unstable();
    sorted.dedup();
    Ok(sorted)
}
