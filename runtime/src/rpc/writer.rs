//! From a JavaScript value to bytes ([`atoll_bindings::value`]).
//!
//! The value is the guest's: getters, Proxies and arrays that change while they are read may run here. Nothing is read
//! twice that must agree, no state of the host is borrowed meanwhile, and whatever they do, the bytes are well formed or there
//! are none. What the format has no tag for is asked of the scripts' hook (`js/rpc.js`): a capability, an object that is sent
//! in parts, or an error.

use std::collections::HashMap;
use std::num::NonZeroI32;

use atoll_bindings::value::{Tag, VALUE_BYTES_MAX, VALUE_DEPTH_MAX, put_double, put_int, put_number};

use crate::modules::string;

/// Classes of errors that keep their prototype.
const ERROR_CLASSES: [&str; 8] = [
    "Error",
    "TypeError",
    "RangeError",
    "ReferenceError",
    "SyntaxError",
    "EvalError",
    "URIError",
    "AggregateError",
];
/// Arrays with more holes than values, and at least this long, are written by their indices.
const SPARSE_LENGTH_MIN: u32 = 1_024;

/// What the hook is asked.
mod ask {
    /// What is this object?
    pub(super) const SPECIAL: i32 = 0;
    /// Throw a DataCloneError with this message.
    pub(super) const REFUSE: i32 = 1;
    /// Throw a RangeError with this message.
    pub(super) const RANGE: i32 = 2;
}

/// The bytes of `value`; `None` if an exception is pending. `hook` is called as `(question, value)`.
pub(crate) fn write<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    value: v8::Local<'s, v8::Value>,
    hook: v8::Local<'s, v8::Function>,
) -> Option<Vec<u8>> {
    let plain = v8::Object::new(scope).get_prototype(scope)?;
    let mut writer =
        Writer { out: Vec::with_capacity(128), written: 0, seen: HashMap::new(), objects: 0, hook, plain };
    writer.value(scope, value, 0)?;
    if writer.written > VALUE_BYTES_MAX {
        let message = string(scope, &too_large(writer.written))?;
        let error = v8::Exception::error(scope, message);
        scope.throw_exception(error);
        return None;
    }
    Some(writer.out)
}

/// What is said of a value of more than [`VALUE_BYTES_MAX`] bytes.
pub(crate) fn too_large(bytes: usize) -> String {
    format!(
        "Serialized RPC arguments or return values are limited to 32MiB, but the size of this value was: {bytes} bytes."
    )
}

struct Writer<'s> {
    out: Vec<u8>,
    /// All bytes, those beyond the bound too, which are counted and not kept.
    written: usize,
    /// Numbers of objects by their identity hash.
    seen: HashMap<NonZeroI32, Vec<(v8::Local<'s, v8::Object>, u32)>>,
    objects: u32,
    hook: v8::Local<'s, v8::Function>,
    /// `Object.prototype`.
    plain: v8::Local<'s, v8::Value>,
}

impl<'s> Writer<'s> {
    fn put(&mut self, bytes: &[u8]) {
        self.written += bytes.len();
        if self.written <= VALUE_BYTES_MAX {
            self.out.extend_from_slice(bytes);
        }
    }

    fn tag(&mut self, tag: Tag) {
        self.put(&[tag as u8]);
    }

    fn number(&mut self, number: u64) {
        let mut bytes = Vec::with_capacity(10);
        put_number(&mut bytes, number);
        self.put(&bytes);
    }

    fn ask(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        question: i32,
        value: v8::Local<'s, v8::Value>,
    ) -> Option<v8::Local<'s, v8::Value>> {
        let question = v8::Integer::new(scope, question).into();
        let receiver = v8::undefined(scope).into();
        self.hook.call(scope, receiver, &[question, value])
    }

    fn refuse(&self, scope: &mut v8::PinScope<'s, '_>, message: &str) -> Option<()> {
        let message = string(scope, message)?.into();
        self.ask(scope, ask::REFUSE, message);
        None
    }

    fn text(&mut self, scope: &mut v8::PinScope<'s, '_>, text: v8::Local<'s, v8::String>) {
        let length = text.length();
        let bytes = if text.is_onebyte() { length } else { length * 2 };
        if self.written.saturating_add(bytes) > VALUE_BYTES_MAX {
            // Counted for the error, without taking the memory.
            self.written += bytes;
            return;
        }
        if text.is_onebyte() {
            let mut bytes = vec![0; length];
            text.write_one_byte_v2(scope, 0, &mut bytes, v8::WriteFlags::empty());
            self.tag(Tag::Latin1);
            self.number(length as u64);
            self.put(&bytes);
        } else {
            let mut units = vec![0_u16; length];
            text.write_v2(scope, 0, &mut units, v8::WriteFlags::empty());
            self.tag(Tag::Utf16);
            self.number(length as u64);
            let bytes: Vec<u8> = units.into_iter().flat_map(u16::to_le_bytes).collect();
            self.put(&bytes);
        }
    }

    fn value(
        &mut self,
        scope: &mut v8::PinScope<'s, '_>,
        value: v8::Local<'s, v8::Value>,
        depth: usize,
    ) -> Option<()> {
        if value.is_undefined() {
            self.tag(Tag::Undefined);
        } else if value.is_null() {
            self.tag(Tag::Null);
        } else if value.is_true() {
            self.tag(Tag::True);
        } else if value.is_false() {
            self.tag(Tag::False);
        } else if let Ok(text) = value.try_cast::<v8::String>() {
            self.text(scope, text);
        } else if let Ok(number) = value.try_cast::<v8::Number>() {
            let mut bytes = Vec::with_capacity(9);
            match value.try_cast::<v8::Int32>() {
                Ok(number) => put_int(&mut bytes, number.value()),
                Err(_) => put_double(&mut bytes, number.value()),
            }
            self.put(&bytes);
        } else if let Ok(number) = value.try_cast::<v8::BigInt>() {
            let mut words = vec![0; number.word_count()];
            let (negative, words) = number.to_words_array(&mut words);
            self.tag(Tag::BigInt);
            self.put(&[u8::from(negative)]);
            self.number(words.len() as u64);
            for word in words {
                self.put(&word.to_le_bytes());
            }
        } else if let Ok(object) = value.try_cast::<v8::Object>() {
            return self.object(scope, object, depth);
        } else if let Ok(symbol) = value.try_cast::<v8::Symbol>() {
            let description = symbol.description(scope);
            let name = match description.try_cast::<v8::String>() {
                Ok(name) => name.to_rust_string_lossy(scope),
                Err(_) => String::new(),
            };
            return self.refuse(scope, &format!("Symbol({name}) could not be cloned."));
        } else {
            return self.refuse(scope, "The value could not be cloned.");
        }
        Some(())
    }

    /// Gives an object its number. `None` if it has one: then a reference was written.
    fn meet(&mut self, object: v8::Local<'s, v8::Object>) -> Option<()> {
        let same = self.seen.entry(object.get_identity_hash()).or_default();
        if let Some((_, number)) = same.iter().find(|(each, _)| *each == object) {
            let number = *number;
            self.tag(Tag::Reference);
            self.number(number.into());
            return None;
        }
        same.push((object, self.objects));
        self.objects += 1;
        Some(())
    }

    fn object(
        &mut self,
        scope: &mut v8::PinScope<'s, '_>,
        object: v8::Local<'s, v8::Object>,
        depth: usize,
    ) -> Option<()> {
        if depth >= VALUE_DEPTH_MAX {
            let message = string(scope, "Maximum call stack size exceeded")?.into();
            self.ask(scope, ask::RANGE, message);
            return None;
        }
        if self.meet(object).is_none() {
            return Some(());
        }
        let value: v8::Local<v8::Value> = object.into();
        if value.is_proxy() || value.is_function() {
            self.special(scope, object, depth)
        } else if let Ok(array) = value.try_cast::<v8::Array>() {
            self.array(scope, array, depth)
        } else if let Ok(map) = value.try_cast::<v8::Map>() {
            let flat = map.as_array(scope);
            self.tag(Tag::Map);
            self.number(u64::from(flat.length() / 2));
            self.items(scope, flat, depth)
        } else if let Ok(set) = value.try_cast::<v8::Set>() {
            let flat = set.as_array(scope);
            self.tag(Tag::Set);
            self.number(u64::from(flat.length()));
            self.items(scope, flat, depth)
        } else if let Ok(date) = value.try_cast::<v8::Date>() {
            self.tag(Tag::Date);
            self.put(&date.value_of().to_le_bytes());
            Some(())
        } else if value.is_native_error() {
            if object.get_constructor_name().to_rust_string_lossy(scope) == "DOMException" {
                // A class of the web platform: the scripts know the real one.
                return self.special(scope, object, depth);
            }
            self.error(scope, object, depth)
        } else if let Ok(buffer) = value.try_cast::<v8::ArrayBuffer>() {
            self.buffer(scope, buffer)
        } else if let Ok(view) = value.try_cast::<v8::ArrayBufferView>() {
            self.view(scope, view)
        } else {
            self.other(scope, object, depth)
        }
    }

    fn items(
        &mut self,
        scope: &mut v8::PinScope<'s, '_>,
        flat: v8::Local<'s, v8::Array>,
        depth: usize,
    ) -> Option<()> {
        for at in 0..flat.length() {
            let item = flat.get_index(scope, at)?;
            self.value(scope, item, depth + 1)?;
        }
        Some(())
    }

    fn other(
        &mut self,
        scope: &mut v8::PinScope<'s, '_>,
        object: v8::Local<'s, v8::Object>,
        depth: usize,
    ) -> Option<()> {
        let value: v8::Local<v8::Value> = object.into();
        let exotic = value.is_promise()
            || value.is_weak_map()
            || value.is_weak_set()
            || value.is_arguments_object()
            || value.is_shared_array_buffer()
            || value.is_wasm_module_object()
            || value.is_wasm_memory_object()
            || value.is_module_namespace_object()
            || value.is_symbol_object();
        if exotic {
            let name = match value.is_arguments_object() {
                true => "Object".to_owned(),
                false => object.get_constructor_name().to_rust_string_lossy(scope),
            };
            return self.refuse(scope, &format!("#<{name}> could not be cloned."));
        }
        let iterator = [
            (value.is_generator_object(), "Generator"),
            (value.is_map_iterator(), "Map Iterator"),
            (value.is_set_iterator(), "Set Iterator"),
        ];
        if let Some((_, name)) = iterator.into_iter().find(|(is, _)| *is) {
            return self.refuse(scope, &format!("[object {name}] could not be cloned."));
        }
        if object.get_prototype(scope)? == self.plain {
            // Boxed values and regular expressions have prototypes of their own.
            self.tag(Tag::Object);
            let keys = own_keys(scope, object, v8::PropertyFilter::ONLY_ENUMERABLE)?;
            return self.properties(scope, object, keys, depth);
        }
        self.special(scope, object, depth)
    }

    /// Properties that are there when they are read; one that a getter removed meanwhile is undefined.
    fn properties(
        &mut self,
        scope: &mut v8::PinScope<'s, '_>,
        object: v8::Local<'s, v8::Object>,
        keys: Vec<v8::Local<'s, v8::Value>>,
        depth: usize,
    ) -> Option<()> {
        self.number(keys.len() as u64);
        for key in keys {
            let name = key.to_string(scope)?;
            self.text(scope, name);
            let value = object.get(scope, key)?;
            self.value(scope, value, depth + 1)?;
        }
        Some(())
    }

    fn array(
        &mut self,
        scope: &mut v8::PinScope<'s, '_>,
        array: v8::Local<'s, v8::Array>,
        depth: usize,
    ) -> Option<()> {
        let length = array.length();
        let keys = own_keys(scope, array.into(), v8::PropertyFilter::ONLY_ENUMERABLE)?;
        if length >= SPARSE_LENGTH_MIN && (keys.len() as u64) < u64::from(length) / 2 {
            self.tag(Tag::Sparse);
            self.number(length.into());
            return self.properties(scope, array.into(), keys, depth);
        }
        self.tag(Tag::Array);
        self.number(length.into());
        let dense = keys.len() as u64 >= u64::from(length);
        for at in 0..length {
            if !dense || at >= array.length() {
                let there = array.has_index(scope, at)?;
                if !there {
                    self.tag(Tag::Hole);
                    continue;
                }
            }
            let item = array.get_index(scope, at)?;
            self.value(scope, item, depth + 1)?;
        }
        let named = keys.into_iter().filter(|key| !key.is_uint32()).collect();
        self.properties(scope, array.into(), named, depth)
    }

    fn error(
        &mut self,
        scope: &mut v8::PinScope<'s, '_>,
        error: v8::Local<'s, v8::Object>,
        depth: usize,
    ) -> Option<()> {
        let key = string(scope, "name")?;
        // The class is that of the prototype; an own `name` travels as a property.
        let prototype = error.get_prototype(scope)?;
        let name = match prototype.try_cast::<v8::Object>() {
            Ok(prototype) => prototype.get(scope, key.into())?,
            Err(_) => prototype,
        };
        let name = match name.try_cast::<v8::String>() {
            Ok(name) => name.to_rust_string_lossy(scope),
            Err(_) => String::new(),
        };
        let class = ERROR_CLASSES.into_iter().find(|class| *class == name).unwrap_or("Error");
        let message_key = string(scope, "message")?;
        let message = error.get(scope, message_key.into())?;
        self.tag(Tag::Error);
        let class = string(scope, class)?;
        self.text(scope, class);
        match message.try_cast::<v8::String>() {
            Ok(message) => self.text(scope, message),
            Err(_) => self.tag(Tag::Undefined),
        }
        let mut keys = own_keys(scope, error, v8::PropertyFilter::ALL_PROPERTIES)?;
        let stack = string(scope, "stack")?;
        keys.retain(|key| !key.strict_equals(stack.into()) && !key.strict_equals(message_key.into()));
        self.properties(scope, error, keys, depth)
    }

    fn buffer(
        &mut self,
        scope: &mut v8::PinScope<'s, '_>,
        buffer: v8::Local<'s, v8::ArrayBuffer>,
    ) -> Option<()> {
        if buffer.was_detached() {
            return self.refuse(scope, "An ArrayBuffer is detached and could not be cloned.");
        }
        let length = buffer.byte_length();
        self.tag(Tag::Buffer);
        self.number(length as u64);
        if self.written.saturating_add(length) > VALUE_BYTES_MAX {
            self.written += length;
            return Some(());
        }
        let mut bytes = vec![0; length];
        if length > 0
            && let Some(view) = v8::Uint8Array::new(scope, buffer, 0, length)
        {
            view.copy_contents(&mut bytes);
        }
        self.put(&bytes);
        Some(())
    }

    fn view(
        &mut self,
        scope: &mut v8::PinScope<'s, '_>,
        view: v8::Local<'s, v8::ArrayBufferView>,
    ) -> Option<()> {
        let kind = super::ViewKind::of(view.into());
        let (offset, length) = (view.byte_offset(), view.byte_length());
        let Some((kind, buffer)) = kind.zip(view.buffer(scope)) else {
            return self.refuse(scope, "The view could not be cloned.");
        };
        self.tag(Tag::View);
        self.put(&[kind as u8]);
        self.number(offset as u64);
        self.number(length as u64);
        if self.meet(buffer.into()).is_none() {
            return Some(());
        }
        self.buffer(scope, buffer)
    }

    /// What the scripts know: a number is a capability, [kind, parts] an object in parts, a string the name of a type that
    /// cannot be sent.
    fn special(
        &mut self,
        scope: &mut v8::PinScope<'s, '_>,
        object: v8::Local<'s, v8::Object>,
        depth: usize,
    ) -> Option<()> {
        let answer = self.ask(scope, ask::SPECIAL, object.into())?;
        if let Ok(index) = answer.try_cast::<v8::Uint32>() {
            self.tag(Tag::Capability);
            self.number(index.value().into());
            return Some(());
        }
        if let Ok(pair) = answer.try_cast::<v8::Array>() {
            let kind = pair.get_index(scope, 0)?.try_cast::<v8::Uint32>().ok()?.value();
            let parts = pair.get_index(scope, 1)?;
            self.tag(Tag::Special);
            self.number(kind.into());
            return self.value(scope, parts, depth + 1);
        }
        let name = match answer.try_cast::<v8::String>() {
            Ok(name) => name.to_rust_string_lossy(scope),
            Err(_) => object.get_constructor_name().to_rust_string_lossy(scope),
        };
        let message = format!(
            "Could not serialize object of type \"{name}\". This type does not support serialization."
        );
        self.refuse(scope, &message)
    }
}

fn own_keys<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    object: v8::Local<'s, v8::Object>,
    filter: v8::PropertyFilter,
) -> Option<Vec<v8::Local<'s, v8::Value>>> {
    let arguments = v8::GetPropertyNamesArgs {
        mode: v8::KeyCollectionMode::OwnOnly,
        property_filter: filter | v8::PropertyFilter::SKIP_SYMBOLS,
        index_filter: v8::IndexFilter::IncludeIndices,
        key_conversion: v8::KeyConversionMode::KeepNumbers,
    };
    let names = object.get_own_property_names(scope, arguments)?;
    (0..names.length()).map(|at| names.get_index(scope, at)).collect()
}
