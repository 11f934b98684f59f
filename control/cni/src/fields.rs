//! Reading JSON whose members must have a type and may be many more than we know: an error names the member's path.

use serde_json::{Map, Value};

use crate::fault::{Fault, code};

/// A member, or the whole, with the path that leads to it.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    path: String,
    value: Option<&'a Value>,
}

/// A value as it is told: not all of what somebody may have written.
fn told(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

impl<'a> Field<'a> {
    /// A member of the whole.
    pub(crate) fn of(members: &'a Map<String, Value>, name: &str) -> Self {
        Self { path: name.to_owned(), value: members.get(name).filter(|value| !value.is_null()) }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Its type is wrong.
    fn expected(&self, what: &str) -> Fault {
        let value = self.value.map(told).unwrap_or_default();
        Fault::new(
            code::DECODING,
            format!("error unmarshall network config: {}: {value}: {what} is expected", self.path),
        )
    }

    /// Its type is right, its value cannot be.
    pub(crate) fn invalid(&self, rule: &str) -> Fault {
        let value = self.value.map_or_else(|| "missing".to_owned(), told);
        Fault::new(code::INVALID_CONFIG, format!("{}: {value}: {rule}", self.path))
    }

    /// It could be, but not here.
    pub(crate) fn unsupported(&self, rule: &str) -> Fault {
        Fault { code: code::UNSUPPORTED, ..self.invalid(rule) }
    }

    pub(crate) fn is_absent(&self) -> bool {
        self.value.is_none()
    }

    pub(crate) fn value(&self) -> Option<&'a Value> {
        self.value
    }

    pub(crate) fn object(&self) -> Result<Option<&'a Map<String, Value>>, Fault> {
        let object = |value: &'a Value| value.as_object().ok_or_else(|| self.expected("an object"));
        self.value.map(object).transpose()
    }

    /// A member of it.
    pub(crate) fn member(&self, name: &str) -> Result<Self, Fault> {
        let value = self.object()?.and_then(|members| members.get(name)).filter(|value| !value.is_null());
        Ok(Self { path: format!("{}.{name}", self.path), value })
    }

    /// What it lists; nothing when it is absent.
    pub(crate) fn list(&self) -> Result<Vec<Self>, Fault> {
        let Some(value) = self.value else { return Ok(Vec::new()) };
        let list = value.as_array().ok_or_else(|| self.expected("a list"))?;
        let element = |(i, value)| Self { path: format!("{}[{i}]", self.path), value: Some(value) };
        Ok(list.iter().enumerate().map(element).collect())
    }

    pub(crate) fn text(&self) -> Result<Option<&'a str>, Fault> {
        self.value.map(|value| value.as_str().ok_or_else(|| self.expected("text"))).transpose()
    }

    pub(crate) fn number(&self) -> Result<Option<u64>, Fault> {
        self.value.map(|value| value.as_u64().ok_or_else(|| self.expected("a number that is not negative"))).transpose()
    }

    pub(crate) fn truth(&self) -> Result<Option<bool>, Fault> {
        self.value.map(|value| value.as_bool().ok_or_else(|| self.expected("true or false"))).transpose()
    }

    /// Text that is something else in writing.
    pub(crate) fn parsed<T: std::str::FromStr>(&self, what: &str) -> Result<Option<T>, Fault> {
        let parse = |text: &str| text.parse().map_err(|_| self.invalid(&format!("{what} is expected")));
        self.text()?.map(parse).transpose()
    }

    /// Texts of a list.
    pub(crate) fn texts(&self) -> Result<Vec<String>, Fault> {
        let text = |field: Self| field.text().map(|text| text.unwrap_or_default().to_owned());
        self.list()?.into_iter().map(text).collect()
    }
}
