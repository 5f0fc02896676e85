//! Hashes, HMACs and key derivation for `node:crypto`.
//!
//! ```text
//! crypto.js ──▶ op ──▶ on the isolate's own thread, so its CPU clock is the tenant's
//!                       └─ in steps; between two of them the watchdog's verdict is looked at
//! ```
//! WebCrypto's functions are asynchronous and run on a helper thread; Node's have forms that answer at once, so these
//! compute where they are called. Native code does not see V8's termination: without the steps, a password hash with
//! a billion rounds would get the whole host condemned.

use std::cell::RefCell;
use std::sync::Arc;

use deno_core::{GarbageCollected, OpState, op2};
use hmac::{Hmac, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::digest::{Digest, KeyInit};
use sha2::{Sha224, Sha256, Sha384, Sha512, Sha512_224, Sha512_256};
use sha3::{Sha3_224, Sha3_256, Sha3_384, Sha3_512};

use super::{OutOfRange, Thrown, isolate};
use crate::memory::External;
use crate::watchdog::Slot;

/// How much is hashed between two looks at the verdict, in bytes: well under a millisecond.
pub(super) const STEP_BYTES: usize = 256 * 1024;
/// How many rounds of a derivation are made between two looks.
const STEP_ROUNDS: u32 = 1_024;
/// What a running hash may hold natively, in bytes: two states of the largest with their blocks.
const STATE_BYTES: usize = 1_024;

/// Calls a generic function with the hash that has this name.
macro_rules! with_hash {
    ($name:expr, $function:ident::<$wrap:ident>($($argument:expr),*)) => {
        match $name {
            "md5" => Some($function::<$wrap!(Md5)>($($argument),*)),
            "sha1" => Some($function::<$wrap!(Sha1)>($($argument),*)),
            "sha224" => Some($function::<$wrap!(Sha224)>($($argument),*)),
            "sha256" => Some($function::<$wrap!(Sha256)>($($argument),*)),
            "sha384" => Some($function::<$wrap!(Sha384)>($($argument),*)),
            "sha512" => Some($function::<$wrap!(Sha512)>($($argument),*)),
            "sha512-224" => Some($function::<$wrap!(Sha512_224)>($($argument),*)),
            "sha512-256" => Some($function::<$wrap!(Sha512_256)>($($argument),*)),
            "sha3-224" => Some($function::<$wrap!(Sha3_224)>($($argument),*)),
            "sha3-256" => Some($function::<$wrap!(Sha3_256)>($($argument),*)),
            "sha3-384" => Some($function::<$wrap!(Sha3_384)>($($argument),*)),
            "sha3-512" => Some($function::<$wrap!(Sha3_512)>($($argument),*)),
            _ => None,
        }
    };
}
macro_rules! plain {
    ($hash:ty) => {
        $hash
    };
}
macro_rules! keyed {
    ($hash:ty) => { Hmac<$hash> };
}

/// A hash or an HMAC that takes more data.
trait Running {
    fn update(&mut self, data: &[u8]);
    fn copy(&self) -> Box<dyn Running>;
    fn finish(self: Box<Self>) -> Vec<u8>;
}

#[derive(Clone)]
struct Plain<D>(D);
#[derive(Clone)]
struct Keyed<M>(M);

impl<D: Digest + Clone + 'static> Running for Plain<D> {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }
    fn copy(&self) -> Box<dyn Running> {
        Box::new(self.clone())
    }
    fn finish(self: Box<Self>) -> Vec<u8> {
        self.0.finalize().to_vec()
    }
}

impl<M: Mac + Clone + 'static> Running for Keyed<M> {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }
    fn copy(&self) -> Box<dyn Running> {
        Box::new(self.clone())
    }
    fn finish(self: Box<Self>) -> Vec<u8> {
        self.0.finalize().into_bytes().to_vec()
    }
}

fn start_plain<D: Digest + Clone + 'static>() -> Box<dyn Running> {
    Box::new(Plain(D::new()))
}

fn start_keyed<M: Mac + KeyInit + Clone + 'static>(key: &[u8]) -> Option<Box<dyn Running>> {
    // HMAC takes keys of every length; the type does not say so.
    let mac: M = keyed(key)?;
    Some(Box::new(Keyed(mac)))
}

fn keyed<M: Mac + KeyInit>(key: &[u8]) -> Option<M> {
    <M as Mac>::new_from_slice(key).ok()
}

/// What JavaScript holds of a running hash. Its native memory is charged to the isolate like an array buffer.
pub(crate) struct Hasher {
    running: RefCell<Option<Box<dyn Running>>>,
    external: Arc<External>,
}

impl Hasher {
    fn new(
        scope: &mut v8::PinScope,
        external: Arc<External>,
        running: Box<dyn Running>,
    ) -> Result<Self, OutOfRange> {
        external
            .reserve_or_collect(scope, STATE_BYTES)
            .ok_or_else(|| OutOfRange("Too many hashes at once".into()))?;
        Ok(Self { running: RefCell::new(Some(running)), external })
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.external.release(STATE_BYTES);
    }
}

// JUSTIFICATION: objects that V8's collector owns have no other form.
// SAFETY: it holds nothing of V8's heap, so there is nothing to trace; the name is a static string.
unsafe impl GarbageCollected for Hasher {
    fn trace(&self, _visitor: &mut v8::cppgc::Visitor) {}

    fn get_name(&self) -> &'static std::ffi::CStr {
        c"Hasher"
    }
}

/// A hash, or with a key an HMAC; an error if there is none of that name.
#[op2]
#[cppgc]
pub(crate) fn op_node_hash_create(
    scope: &mut v8::PinScope<'_, '_>,
    state: &mut OpState,
    #[string] name: &str,
    #[buffer] key: Option<&[u8]>,
) -> Result<Hasher, OutOfRange> {
    let running = match key {
        None => with_hash!(name, start_plain::<plain>()),
        Some(key) => with_hash!(name, start_keyed::<keyed>(key)).flatten(),
    };
    let running = running.ok_or_else(|| OutOfRange(format!("Invalid digest: {name}")))?;
    let external = Arc::clone(&isolate(state).borrow().external);
    Hasher::new(scope, external, running)
}

/// Takes more data; false if it gave its result before.
#[op2(fast)]
pub(crate) fn op_node_hash_update(
    state: &mut OpState,
    #[cppgc] hasher: &Hasher,
    #[buffer] data: &[u8],
) -> Result<bool, Thrown> {
    let slot = Arc::clone(&isolate(state).borrow().slot);
    let mut running = hasher.running.borrow_mut();
    let Some(running) = running.as_mut() else { return Ok(false) };
    for step in data.chunks(STEP_BYTES) {
        go_on(&slot)?;
        running.update(step);
    }
    Ok(true)
}

/// The result, into `out`; its length, or 0 if it was given before.
#[op2(fast)]
#[smi]
pub(crate) fn op_node_hash_digest(#[cppgc] hasher: &Hasher, #[buffer] out: &mut [u8]) -> u32 {
    let Some(running) = hasher.running.borrow_mut().take() else { return 0 };
    let result = running.finish();
    let length = result.len().min(out.len());
    out[..length].copy_from_slice(&result[..length]);
    u32::try_from(length).unwrap_or_default()
}

/// Another one in the same state; an error if it gave its result before.
#[op2]
#[cppgc]
pub(crate) fn op_node_hash_copy(
    scope: &mut v8::PinScope<'_, '_>,
    #[cppgc] hasher: &Hasher,
) -> Result<Hasher, OutOfRange> {
    let copy = hasher.running.borrow().as_ref().map(|running| running.copy());
    let copy = copy.ok_or_else(|| OutOfRange("Digest already called".into()))?;
    Hasher::new(scope, Arc::clone(&hasher.external), copy)
}

/// What a stopped guest gets. It never sees it: V8 unwinds it.
pub(super) fn go_on(slot: &Slot) -> Result<(), Thrown> {
    if slot.verdict().is_some() { Err(Thrown("stopped".into())) } else { Ok(()) }
}

// ---- Derivation ------------------------------------------------------------------------------------------

/// PBKDF2 (RFC 8018) into `out`.
#[op2(fast)]
pub(crate) fn op_node_pbkdf2(
    state: &mut OpState,
    #[string] name: &str,
    #[buffer] password: &[u8],
    #[buffer] salt: &[u8],
    iterations: u32,
    #[buffer] out: &mut [u8],
) -> Result<(), Thrown> {
    let slot = Arc::clone(&isolate(state).borrow().slot);
    let derived = with_hash!(name, pbkdf2::<keyed>(&slot, password, salt, iterations, out));
    derived.unwrap_or_else(|| Err(Thrown(format!("Invalid digest: {name}"))))
}

fn pbkdf2<M: Mac + KeyInit + Clone>(
    slot: &Slot,
    password: &[u8],
    salt: &[u8],
    iterations: u32,
    out: &mut [u8],
) -> Result<(), Thrown> {
    let mac: M = keyed(password).ok_or_else(|| Thrown("Invalid key".into()))?;
    for (block, part) in (1_u32..).zip(out.chunks_mut(M::output_size())) {
        go_on(slot)?;
        let mut round =
            mac.clone().chain_update(salt).chain_update(block.to_be_bytes()).finalize().into_bytes();
        part.copy_from_slice(&round[..part.len()]);
        for number in 1..iterations {
            if number % STEP_ROUNDS == 0 {
                go_on(slot)?;
            }
            round = mac.clone().chain_update(&round).finalize().into_bytes();
            for (byte, other) in part.iter_mut().zip(&round) {
                *byte ^= other;
            }
        }
    }
    Ok(())
}

/// HKDF (RFC 5869) into `out`; the script checked that it is no longer than the hash allows.
#[op2(fast)]
pub(crate) fn op_node_hkdf(
    state: &mut OpState,
    #[string] name: &str,
    #[buffer] key: &[u8],
    #[buffer] salt: &[u8],
    #[buffer] info: &[u8],
    #[buffer] out: &mut [u8],
) -> Result<(), Thrown> {
    let slot = Arc::clone(&isolate(state).borrow().slot);
    let derived = with_hash!(name, hkdf::<keyed>(&slot, key, salt, info, out));
    derived.unwrap_or_else(|| Err(Thrown(format!("Invalid digest: {name}"))))
}

fn hkdf<M: Mac + KeyInit + Clone>(
    slot: &Slot,
    key: &[u8],
    salt: &[u8],
    info: &[u8],
    out: &mut [u8],
) -> Result<(), Thrown> {
    let invalid = || Thrown("Invalid key".into());
    let mut extract: M = keyed(salt).ok_or_else(invalid)?;
    for step in key.chunks(STEP_BYTES) {
        go_on(slot)?;
        extract.update(step);
    }
    let expand: M = keyed(&extract.finalize().into_bytes()).ok_or_else(invalid)?;
    let mut last = Vec::new();
    for (number, part) in (1_u8..=u8::MAX).zip(out.chunks_mut(M::output_size())) {
        go_on(slot)?;
        let block = expand.clone().chain_update(&last).chain_update(info).chain_update([number]).finalize();
        last = block.into_bytes().to_vec();
        part.copy_from_slice(&last[..part.len()]);
    }
    Ok(())
}

/// scrypt (RFC 7914) into `out`. The script checked the parameters; the memory is charged while it runs.
#[op2(fast)]
pub(crate) fn op_node_scrypt(
    state: &mut OpState,
    #[buffer] password: &[u8],
    #[buffer] salt: &[u8],
    cost: u32,
    block_size: u32,
    parallel: u32,
    #[buffer] out: &mut [u8],
) -> Result<(), Thrown> {
    let state = isolate(state);
    let (slot, external) = {
        let state = state.borrow();
        (Arc::clone(&state.slot), Arc::clone(&state.external))
    };
    let too_much = || Thrown("Scrypt needs more memory than this worker has".into());
    let block_bytes = (block_size as usize).checked_mul(scrypt::BLOCK_BYTES).ok_or_else(too_much)?;
    let blocks = u64::from(cost) + u64::from(parallel) + 2;
    let bytes = usize::try_from(blocks)
        .ok()
        .and_then(|blocks| block_bytes.checked_mul(blocks))
        .ok_or_else(too_much)?;
    if !external.reserve(bytes) {
        return Err(too_much());
    }
    let mut derive = || {
        let mut lanes = vec![0; block_bytes * parallel as usize];
        pbkdf2::<Hmac<Sha256>>(&slot, password, salt, 1, &mut lanes)?;
        let mut table = vec![0; block_bytes / 4 * cost as usize];
        for lane in lanes.chunks_mut(block_bytes.max(1)) {
            scrypt::mix(lane, &mut table, || go_on(&slot))?;
        }
        pbkdf2::<Hmac<Sha256>>(&slot, password, &lanes, 1, out)
    };
    let derived = derive();
    external.release(bytes);
    derived
}

/// The memory-hard part of scrypt. Own code, because it must stop in the middle.
mod scrypt {
    /// A block for each unit of `r`, in bytes.
    pub(super) const BLOCK_BYTES: usize = 128;
    const WORDS: usize = 16;

    /// `scryptROMix` of one lane, with a table of as many words as the lane has, times the cost.
    pub(super) fn mix<E>(
        lane: &mut [u8],
        table: &mut [u32],
        mut go_on: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        /// How many mixes are made between two looks.
        const STEP_MIXES: usize = 64;
        let words = lane.len() / 4;
        let mut x: Vec<u32> =
            lane.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let mut y = vec![0; words];
        for (number, row) in table.chunks_exact_mut(words).enumerate() {
            if number % STEP_MIXES == 0 {
                go_on()?;
            }
            row.copy_from_slice(&x);
            mix_block(&mut x, &mut y);
        }
        let cost = table.len() / words;
        for number in 0..cost {
            if number % STEP_MIXES == 0 {
                go_on()?;
            }
            // The cost is a power of two.
            let at = (x[words - WORDS] as usize & (cost - 1)) * words;
            for (word, other) in x.iter_mut().zip(&table[at..at + words]) {
                *word ^= other;
            }
            mix_block(&mut x, &mut y);
        }
        for (bytes, word) in lane.chunks_exact_mut(4).zip(x) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Ok(())
    }

    /// `scryptBlockMix`, with `y` as room.
    fn mix_block(x: &mut [u32], y: &mut [u32]) {
        let half = x.len() / 2;
        let mut last = [0; WORDS];
        last.copy_from_slice(&x[x.len() - WORDS..]);
        for (number, block) in x.chunks_exact(WORDS).enumerate() {
            for (word, other) in last.iter_mut().zip(block) {
                *word ^= other;
            }
            salsa20_8(&mut last);
            let at = number / 2 * WORDS + if number % 2 == 0 { 0 } else { half };
            y[at..at + WORDS].copy_from_slice(&last);
        }
        x.copy_from_slice(y);
    }

    fn salsa20_8(block: &mut [u32; WORDS]) {
        const QUARTERS: [[usize; 4]; 8] = [
            [0, 4, 8, 12],
            [5, 9, 13, 1],
            [10, 14, 2, 6],
            [15, 3, 7, 11],
            [0, 1, 2, 3],
            [5, 6, 7, 4],
            [10, 11, 8, 9],
            [15, 12, 13, 14],
        ];
        let mut x = *block;
        for _ in 0..4 {
            for [a, b, c, d] in QUARTERS {
                x[b] ^= x[a].wrapping_add(x[d]).rotate_left(7);
                x[c] ^= x[b].wrapping_add(x[a]).rotate_left(9);
                x[d] ^= x[c].wrapping_add(x[b]).rotate_left(13);
                x[a] ^= x[d].wrapping_add(x[c]).rotate_left(18);
            }
        }
        for (word, other) in block.iter_mut().zip(x) {
            *word = word.wrapping_add(other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_stopped_guest_waits_for_no_derivation() {
        let slot = Slot::for_this_thread();
        slot.stop(crate::watchdog::Verdict::Cpu);
        let mut out = [0; 64];
        assert!(pbkdf2::<Hmac<Sha512>>(&slot, b"p", b"s", u32::MAX, &mut out).is_err());
        assert!(hkdf::<Hmac<Sha512>>(&slot, b"p", b"s", b"", &mut out).is_err());
        assert!(scrypt::mix(&mut [0; 128], &mut [0; 32 * 4], || go_on(&slot)).is_err());
    }

    /// RFC 6070, RFC 5869 (test case 1) and RFC 7914 (the mixing of section 8).
    #[test]
    fn derivations_give_what_their_rfcs_say() {
        let slot = Slot::for_this_thread();
        let mut out = [0; 20];
        pbkdf2::<Hmac<Sha1>>(&slot, b"password", b"salt", 4_096, &mut out).unwrap();
        assert_eq!(hex(&out), "4b007901b765489abead49d926f721d065a429c1");
        let mut out = [0; 42];
        let (salt, info) = ((0..=0x0c).collect::<Vec<u8>>(), (0xf0..=0xf9).collect::<Vec<u8>>());
        hkdf::<Hmac<Sha256>>(&slot, &[0x0b; 22], &salt, &info, &mut out).unwrap();
        assert_eq!(&hex(&out)[..32], "3cb25f25faacd57a90434f64d0362f2a");
    }
}
