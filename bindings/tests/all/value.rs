//! Values: what goes in comes out, and bytes that are no value are errors, whatever they are.

use std::collections::BTreeMap;

use atoll_bindings::value::{VALUE_DEPTH_MAX, VALUE_PARTS_MAX, Value, ValueError};
use bytes::Bytes;
use proptest::prelude::*;

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Undefined),
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-1e9..1e9_f64).prop_map(Value::Number),
        ".{0,20}".prop_map(Value::Text),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(|bytes| Value::Data(Bytes::from(bytes))),
    ];
    leaf.prop_recursive(4, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
            prop::collection::btree_map(".{0,8}", inner, 0..6).prop_map(Value::Record),
        ]
    })
}

proptest! {
    #[test]
    fn values_come_back(value in value()) {
        prop_assert_eq!(Value::decode(&value.encode()), Ok(value));
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _either = Value::decode(&bytes);
    }

    #[test]
    fn a_cut_value_is_malformed(value in value(), at in any::<prop::sample::Index>()) {
        let bytes = value.encode();
        let cut = at.index(bytes.len());
        prop_assert!(Value::decode(&bytes[..cut]).is_err());
    }
}

#[test]
fn depth_and_parts_are_bounded() {
    // An array of one: tag 12, one value; what is missing at the end does not matter any more.
    let deep = [12, 1].repeat(VALUE_DEPTH_MAX + 2);
    assert_eq!(Value::decode(&deep), Err(ValueError::TooDeep));
    let many = Value::List(vec![Value::Null; VALUE_PARTS_MAX + 1]).encode();
    assert_eq!(Value::decode(&many), Err(ValueError::TooLarge));
    // A count of four milliards in ten bytes reserves nothing.
    assert_eq!(Value::decode(&[12, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 1, 1, 1]), Err(ValueError::Malformed));
    assert_eq!(Value::decode(&[20, 0]), Err(ValueError::NotData));
    let record = Value::Record(BTreeMap::from([("__proto__".to_owned(), Value::Null)]));
    assert_eq!(Value::decode(&record.encode()), Ok(record));
}
