//! From bytes ([`atoll_bindings::value`]) to a JavaScript value.
//!
//! No code of the guest runs here except through the hook, which is ours: properties are defined, never set, so setters and
//! `__proto__` keys are plain data.

use atoll_bindings::value::{Reader as Bytes, Tag, VALUE_DEPTH_MAX, ValueError};

use super::ViewKind;

/// Why there is no value.
#[derive(Debug)]
pub(crate) enum Unread {
    /// An exception is pending (no memory, or the isolate is being stopped).
    Thrown,
    /// The bytes are wrong.
    Malformed,
}

impl From<ValueError> for Unread {
    fn from(_: ValueError) -> Self {
        Self::Malformed
    }
}

type Read<T> = Result<T, Unread>;

/// The value of `bytes`. `hook` is called as `(kind, parts)` for objects that were sent in parts and as `(-1, index)` for
/// capabilities.
pub(crate) fn read<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    bytes: &[u8],
    hook: v8::Local<'s, v8::Function>,
) -> Read<v8::Local<'s, v8::Value>> {
    let mut reader = Reader { bytes: Bytes::new(bytes), objects: Vec::new(), hook };
    let value = reader.value(scope, 0)?;
    if reader.bytes.is_done() { Ok(value) } else { Err(Unread::Malformed) }
}

struct Reader<'a, 's> {
    bytes: Bytes<'a>,
    /// By number; `None` while its parts are read.
    objects: Vec<Option<v8::Local<'s, v8::Value>>>,
    hook: v8::Local<'s, v8::Function>,
}

fn there<T>(made: Option<T>) -> Read<T> {
    made.ok_or(Unread::Thrown)
}

impl<'s> Reader<'_, 's> {
    fn keep(&mut self, object: v8::Local<'s, v8::Value>) {
        self.objects.push(Some(object));
    }

    fn text(&mut self, scope: &mut v8::PinScope<'s, '_>, tag: Tag) -> Read<v8::Local<'s, v8::String>> {
        let length = self.bytes.number()? as usize;
        if tag == Tag::Latin1 {
            let bytes = self.bytes.bytes(length)?;
            return there(v8::String::new_from_one_byte(scope, bytes, v8::NewStringType::Normal));
        }
        let bytes = self.bytes.bytes(length.checked_mul(2).ok_or(Unread::Malformed)?)?;
        let units: Vec<u16> =
            bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        there(v8::String::new_from_two_byte(scope, &units, v8::NewStringType::Normal))
    }

    fn key(&mut self, scope: &mut v8::PinScope<'s, '_>) -> Read<v8::Local<'s, v8::String>> {
        match self.bytes.tag()? {
            Tag::Latin1 => {
                let length = self.bytes.number()? as usize;
                let bytes = self.bytes.bytes(length)?;
                there(v8::String::new_from_one_byte(scope, bytes, v8::NewStringType::Internalized))
            }
            Tag::Utf16 => self.text(scope, Tag::Utf16),
            _ => Err(Unread::Malformed),
        }
    }

    fn value(&mut self, scope: &mut v8::PinScope<'s, '_>, depth: usize) -> Read<v8::Local<'s, v8::Value>> {
        // Two more than the writer allows: the parts of a special object count for themselves.
        if depth > VALUE_DEPTH_MAX + 2 {
            return Err(Unread::Malformed);
        }
        Ok(match self.bytes.tag()? {
            Tag::Undefined | Tag::Hole => v8::undefined(scope).into(),
            Tag::Null => v8::null(scope).into(),
            Tag::True => v8::Boolean::new(scope, true).into(),
            Tag::False => v8::Boolean::new(scope, false).into(),
            Tag::Int => v8::Integer::new(scope, self.bytes.int()?).into(),
            Tag::Double => v8::Number::new(scope, self.bytes.double()?).into(),
            Tag::BigInt => {
                let negative = self.bytes.byte()? != 0;
                let count = self.bytes.count(8)?;
                let bytes = self.bytes.bytes(count * 8)?;
                let words: Vec<u64> = bytes
                    .chunks_exact(8)
                    .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
                    .collect();
                there(v8::BigInt::new_from_words(scope, negative, &words))?.into()
            }
            tag @ (Tag::Latin1 | Tag::Utf16) => self.text(scope, tag)?.into(),
            Tag::Reference => {
                let number = self.bytes.number()? as usize;
                self.objects.get(number).copied().flatten().ok_or(Unread::Malformed)?
            }
            Tag::Object => {
                let object = v8::Object::new(scope);
                self.keep(object.into());
                self.properties(scope, object, depth)?;
                object.into()
            }
            tag @ (Tag::Array | Tag::Sparse) => self.array(scope, tag, depth)?,
            Tag::Map => {
                let map = v8::Map::new(scope);
                self.keep(map.into());
                for _ in 0..self.bytes.count(2)? {
                    let key = self.value(scope, depth + 1)?;
                    let value = self.value(scope, depth + 1)?;
                    there(map.set(scope, key, value))?;
                }
                map.into()
            }
            Tag::Set => {
                let set = v8::Set::new(scope);
                self.keep(set.into());
                for _ in 0..self.bytes.count(1)? {
                    let value = self.value(scope, depth + 1)?;
                    there(set.add(scope, value))?;
                }
                set.into()
            }
            Tag::Date => {
                let date = there(v8::Date::new(scope, self.bytes.double()?))?.into();
                self.keep(date);
                date
            }
            Tag::Buffer => self.buffer(scope)?.into(),
            Tag::View => self.view(scope, depth)?,
            Tag::Error => self.error(scope, depth)?,
            Tag::Capability => {
                let index = self.bytes.number()?;
                let index = v8::Integer::new_from_unsigned(scope, index).into();
                let made = self.make(scope, -1, index)?;
                self.keep(made);
                made
            }
            Tag::Special => {
                let number = self.objects.len();
                self.objects.push(None);
                let kind = i32::try_from(self.bytes.number()?).map_err(|_| Unread::Malformed)?;
                let parts = self.value(scope, depth + 1)?;
                let made = self.make(scope, kind, parts)?;
                self.objects[number] = Some(made);
                made
            }
        })
    }

    fn make(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        kind: i32,
        parts: v8::Local<'s, v8::Value>,
    ) -> Read<v8::Local<'s, v8::Value>> {
        let kind = v8::Integer::new(scope, kind).into();
        let receiver = v8::undefined(scope).into();
        there(self.hook.call(scope, receiver, &[kind, parts]))
    }

    fn properties(
        &mut self,
        scope: &mut v8::PinScope<'s, '_>,
        object: v8::Local<'s, v8::Object>,
        depth: usize,
    ) -> Read<()> {
        for _ in 0..self.bytes.count(3)? {
            let key = self.key(scope)?;
            let value = self.value(scope, depth + 1)?;
            there(object.create_data_property(scope, key.into(), value))?;
        }
        Ok(())
    }

    fn array(
        &mut self,
        scope: &mut v8::PinScope<'s, '_>,
        tag: Tag,
        depth: usize,
    ) -> Read<v8::Local<'s, v8::Value>> {
        let length = if tag == Tag::Sparse { self.bytes.number()? as usize } else { self.bytes.count(1)? };
        // A sparse array is made empty: its length costs nothing.
        let array = v8::Array::new(scope, 0);
        self.keep(array.into());
        if tag == Tag::Array {
            for at in 0..length {
                let mut ahead = self.bytes;
                if ahead.tag()? == Tag::Hole {
                    self.bytes = ahead;
                    continue;
                }
                let value = self.value(scope, depth + 1)?;
                let at = u32::try_from(at).map_err(|_| Unread::Malformed)?;
                there(define_index(scope, array, at, value))?;
            }
        }
        self.properties(scope, array.into(), depth)?;
        if array.length() as usize != length {
            let key = there(crate::modules::string(scope, "length"))?;
            let length = v8::Number::new(scope, length as f64);
            there(array.set(scope, key.into(), length.into()))?;
        }
        Ok(array.into())
    }

    fn buffer(&mut self, scope: &mut v8::PinScope<'s, '_>) -> Read<v8::Local<'s, v8::ArrayBuffer>> {
        let length = self.bytes.number()? as usize;
        let bytes = self.bytes.bytes(length)?;
        // The backing store counts against the isolate's cap: it comes from its allocator.
        let store = v8::ArrayBuffer::new_backing_store(scope, length);
        for (cell, byte) in store.iter().zip(bytes) {
            cell.set(*byte);
        }
        let buffer = v8::ArrayBuffer::with_backing_store(scope, &store.make_shared());
        self.keep(buffer.into());
        Ok(buffer)
    }

    fn view(&mut self, scope: &mut v8::PinScope<'s, '_>, depth: usize) -> Read<v8::Local<'s, v8::Value>> {
        let number = self.objects.len();
        self.objects.push(None);
        let kind = ViewKind::from_byte(self.bytes.byte()?).ok_or(Unread::Malformed)?;
        let (offset, length) = (self.bytes.number()? as usize, self.bytes.number()? as usize);
        let buffer = self.value(scope, depth + 1)?;
        let buffer = buffer.try_cast::<v8::ArrayBuffer>().map_err(|_| Unread::Malformed)?;
        let fits = offset.checked_add(length).is_some_and(|end| end <= buffer.byte_length());
        let view = fits.then(|| kind.make(scope, buffer, offset, length)).flatten();
        let view = view.ok_or(Unread::Malformed)?;
        self.objects[number] = Some(view);
        Ok(view)
    }

    fn error(&mut self, scope: &mut v8::PinScope<'s, '_>, depth: usize) -> Read<v8::Local<'s, v8::Value>> {
        let number = self.objects.len();
        self.objects.push(None);
        let class = self.key(scope)?.to_rust_string_lossy(scope);
        let message = match self.bytes.tag()? {
            tag @ (Tag::Latin1 | Tag::Utf16) => self.text(scope, tag)?,
            _ => v8::String::empty(scope),
        };
        let error = match class.as_str() {
            "TypeError" => v8::Exception::type_error(scope, message),
            "RangeError" => v8::Exception::range_error(scope, message),
            "ReferenceError" => v8::Exception::reference_error(scope, message),
            "SyntaxError" => v8::Exception::syntax_error(scope, message),
            "EvalError" | "URIError" | "AggregateError" => {
                let name = there(crate::modules::string(scope, &class))?;
                let pair = v8::Array::new_with_elements(scope, &[name.into(), message.into()]);
                self.make(scope, -2, pair.into())?
            }
            _ => v8::Exception::error(scope, message),
        };
        self.objects[number] = Some(error);
        let object = error.try_cast::<v8::Object>().map_err(|_| Unread::Malformed)?;
        self.properties(scope, object, depth)?;
        Ok(error)
    }
}

fn define_index(
    scope: &mut v8::PinScope,
    array: v8::Local<v8::Array>,
    at: u32,
    value: v8::Local<v8::Value>,
) -> Option<bool> {
    // `set` on an array that has no such element yet would ask the prototypes for a setter.
    let key = v8::Integer::new_from_unsigned(scope, at);
    let name = v8::Local::<v8::Value>::from(key).to_string(scope)?;
    array.create_data_property(scope, name.into(), value)
}
