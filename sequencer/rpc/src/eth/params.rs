//! Positional parameters, with the texts of geth where they are wrong.

use super::errors::EthError;
use jsonrpsee::types::Params;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A request's parameters, taken one after the other.
pub(super) struct Args {
    values: std::vec::IntoIter<Value>,
    next: usize,
}

impl Args {
    /// Splits the parameters of a method that takes at most `max`.
    pub(super) fn new(params: &Params<'_>, max: usize) -> Result<Self, EthError> {
        let values = match params.as_str().map(str::trim) {
            None | Some("" | "null") => Vec::new(),
            Some(text) => serde_json::from_str::<Vec<Value>>(text)
                .map_err(|_| EthError::InvalidParams("non-array args".into()))?,
        };
        if values.len() > max {
            return Err(EthError::InvalidParams(format!("too many arguments, want at most {max}")));
        }
        Ok(Self { values: values.into_iter(), next: 0 })
    }

    /// The next parameter, which must be there.
    pub(super) fn required<T: DeserializeOwned>(&mut self) -> Result<T, EthError> {
        let index = self.next;
        self.optional()?.ok_or_else(|| EthError::InvalidParams(format!("missing value for required argument {index}")))
    }

    /// The next parameter; none where it is absent or `null`.
    pub(super) fn optional<T: DeserializeOwned>(&mut self) -> Result<Option<T>, EthError> {
        let index = self.next;
        self.next += 1;
        match self.values.next() {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|e| EthError::InvalidParams(format!("invalid argument {index}: {e}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::Address;
    use proptest::prelude::*;

    fn args(text: &'static str, max: usize) -> Result<Args, EthError> {
        Args::new(&Params::new(Some(text)), max)
    }

    #[test]
    fn wrong_parameters_are_told_in_geths_words() {
        let message = |e: EthError| (e.code(), e.to_string());
        let missing = args("[]", 1).unwrap().required::<Address>().unwrap_err();
        assert_eq!(message(missing), (-32602, "missing value for required argument 0".into()));
        let null = args("[null]", 1).unwrap().required::<Address>().unwrap_err();
        assert_eq!(message(null), (-32602, "missing value for required argument 0".into()));
        let many = args("[1,2]", 1).err().unwrap();
        assert_eq!(message(many), (-32602, "too many arguments, want at most 1".into()));
        let object = args(r#"{"a":1}"#, 1).err().unwrap();
        assert_eq!(message(object), (-32602, "non-array args".into()));
        let mut two = args(r#"["0x00000000000000000000000000000000000000aa","0x12"]"#, 2).unwrap();
        two.required::<Address>().unwrap();
        let (code, text) = message(two.required::<Address>().unwrap_err());
        assert_eq!(code, -32602);
        assert!(text.starts_with("invalid argument 1: "), "{text}");
    }

    #[test]
    fn absent_parameters_are_none() {
        for text in [None, Some("[]"), Some("null"), Some("[null]"), Some(" [ ] ")] {
            assert_eq!(Args::new(&Params::new(text), 1).unwrap().optional::<u64>(), Ok(None), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,200}") {
            if let Ok(mut args) = Args::new(&Params::new(Some(&text)), 3) {
                let _ = args.required::<Address>();
                let _ = args.optional::<alloy::rpc::types::Filter>();
            }
        }
    }
}
