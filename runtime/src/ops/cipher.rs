//! AES for `node:crypto`: CBC, CTR, ECB and GCM, piece by piece.
//!
//! WebCrypto has them for whole messages, later; Node's objects take pieces and answer at once. As with hashes (`digest.rs`)
//! the computing is done where it is called, in steps between which the watchdog's verdict is looked at.
//!
//! GCM is counter mode under a keyed hash of what was sent (NIST SP 800-38D). The `aes-gcm` crate knows whole messages only, so
//! its two halves, `ctr` and `ghash`, are put together here.

use std::cell::RefCell;
use std::sync::Arc;

use aes::cipher::consts::U16;
use aes::cipher::generic_array::GenericArray;
use aes::cipher::{BlockDecryptMut, BlockEncrypt, BlockEncryptMut, KeyInit, KeyIvInit, StreamCipher};
use aes::{Aes128, Aes192, Aes256};
use deno_core::{GarbageCollected, OpState, op2};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use subtle::ConstantTimeEq;

use super::digest::{STEP_BYTES, go_on};
use super::{OutOfRange, Thrown, isolate};
use crate::memory::External;

/// Bytes of a block, and of a tag.
const BLOCK_BYTES: usize = 16;
/// What a running cipher may hold natively, in bytes: two key schedules and a hash.
const STATE_BYTES: usize = 2_048;
/// Bytes of a nonce that GCM takes as it is; others are hashed.
const NONCE_BYTES: usize = 12;
/// What the last step answers where there is no length: data that is not whole blocks.
const WRONG_LENGTH: i32 = -1;
/// The same: padding that is none, or a tag that is another one.
const REJECTED: i32 = -2;

type Block = GenericArray<u8, U16>;

/// A block at a time, in place.
type Step = Box<dyn FnMut(&mut Block)>;

/// One of AES's three key lengths.
macro_rules! with_aes {
    ($key:expr, $function:ident::<$mode:ident>($($argument:expr),*)) => {
        match $key.len() {
            16 => $function::<$mode!(Aes128)>($($argument),*),
            24 => $function::<$mode!(Aes192)>($($argument),*),
            32 => $function::<$mode!(Aes256)>($($argument),*),
            _ => None,
        }
    };
}
macro_rules! plain {
    ($aes:ty) => {
        $aes
    };
}
macro_rules! cbc_in { ($aes:ty) => { cbc::Encryptor<$aes> }; }
macro_rules! cbc_out { ($aes:ty) => { cbc::Decryptor<$aes> }; }
macro_rules! ctr_whole { ($aes:ty) => { ctr::Ctr128BE<$aes> }; }
macro_rules! ctr_gcm { ($aes:ty) => { ctr::Ctr32BE<$aes> }; }

fn encryptor<C: BlockEncryptMut<BlockSize = U16> + KeyInit + 'static>(key: &[u8]) -> Option<Step> {
    let mut cipher = C::new_from_slice(key).ok()?;
    Some(Box::new(move |block| cipher.encrypt_block_mut(block)))
}

fn decryptor<C: BlockDecryptMut<BlockSize = U16> + KeyInit + 'static>(key: &[u8]) -> Option<Step> {
    let mut cipher = C::new_from_slice(key).ok()?;
    Some(Box::new(move |block| cipher.decrypt_block_mut(block)))
}

fn chained<C: BlockEncryptMut<BlockSize = U16> + KeyIvInit + 'static>(key: &[u8], iv: &[u8]) -> Option<Step> {
    let mut cipher = C::new_from_slices(key, iv).ok()?;
    Some(Box::new(move |block| cipher.encrypt_block_mut(block)))
}

fn unchained<C: BlockDecryptMut<BlockSize = U16> + KeyIvInit + 'static>(
    key: &[u8],
    iv: &[u8],
) -> Option<Step> {
    let mut cipher = C::new_from_slices(key, iv).ok()?;
    Some(Box::new(move |block| cipher.decrypt_block_mut(block)))
}

fn stream<C: StreamCipher + KeyIvInit + 'static>(key: &[u8], iv: &[u8]) -> Option<Box<dyn StreamCipher>> {
    Some(Box::new(C::new_from_slices(key, iv).ok()?))
}

/// The hash of zeros and counters with which GCM begins.
fn one_block<C: BlockEncrypt<BlockSize = U16> + KeyInit>(key: &[u8], block: &Block) -> Option<Block> {
    let mut block = *block;
    C::new_from_slice(key).ok()?.encrypt_block(&mut block);
    Some(block)
}

/// Bytes that are not a whole block yet.
#[derive(Default)]
struct Rest {
    bytes: [u8; BLOCK_BYTES],
    length: usize,
}

impl Rest {
    fn take(&mut self) -> &[u8] {
        &self.bytes[..std::mem::take(&mut self.length)]
    }

    /// Goes through the whole blocks of what there is; with `keep`, the last one stays.
    fn feed(&mut self, mut data: &[u8], keep: bool, mut each: impl FnMut(&Block)) {
        while self.length + data.len() >= BLOCK_BYTES + usize::from(keep) {
            let (head, tail) = data.split_at(BLOCK_BYTES - self.length);
            self.bytes[self.length..].copy_from_slice(head);
            self.length = 0;
            each(GenericArray::from_slice(&self.bytes));
            data = tail;
        }
        self.bytes[self.length..self.length + data.len()].copy_from_slice(data);
        self.length += data.len();
    }
}

/// Counter mode with a tag.
struct Gcm {
    stream: Box<dyn StreamCipher>,
    hash: GHash,
    rest: Rest,
    /// What the tag is masked with.
    mask: Block,
    aad_bytes: u64,
    data_bytes: u64,
}

impl Gcm {
    fn new(key: &[u8], nonce: &[u8]) -> Option<Self> {
        let hash_key = with_aes!(key, one_block::<plain>(key, &Block::default()))?;
        let hash = GHash::new(&hash_key);
        let mut start = Block::default();
        if nonce.len() == NONCE_BYTES {
            start[..NONCE_BYTES].copy_from_slice(nonce);
            start[BLOCK_BYTES - 1] = 1;
        } else {
            let mut hash = hash.clone();
            hash.update_padded(nonce);
            hash.update(&[lengths(0, nonce.len() as u64)]);
            start = hash.finalize();
        }
        let mut stream = with_aes!(key, stream::<ctr_gcm>(key, &start))?;
        let mut mask = Block::default();
        stream.apply_keystream(&mut mask);
        Some(Self { stream, hash, rest: Rest::default(), mask, aad_bytes: 0, data_bytes: 0 })
    }

    fn hash(&mut self, bytes: &[u8]) {
        let Self { hash, rest, .. } = self;
        rest.feed(bytes, false, |block| hash.update(&[*block]));
    }

    /// The end of one of the two parts: zeros up to a whole block.
    fn pad(&mut self) {
        let Self { hash, rest, .. } = self;
        hash.update_padded(rest.take());
    }

    fn aad(&mut self, bytes: &[u8]) {
        self.aad_bytes += bytes.len() as u64;
        self.hash(bytes);
    }

    fn data(&mut self, data: &mut [u8], encrypts: bool) {
        if self.data_bytes == 0 {
            self.pad();
        }
        self.data_bytes += data.len() as u64;
        if encrypts {
            self.stream.apply_keystream(data);
            self.hash(data);
        } else {
            self.hash(data);
            self.stream.apply_keystream(data);
        }
    }

    fn tag(&mut self) -> Block {
        self.pad();
        self.hash.update(&[lengths(self.aad_bytes, self.data_bytes)]);
        let mut tag = self.hash.clone().finalize();
        tag.iter_mut().zip(self.mask).for_each(|(byte, mask)| *byte ^= mask);
        tag
    }
}

/// The block of lengths in bits.
fn lengths(first_bytes: u64, second_bytes: u64) -> Block {
    let mut block = Block::default();
    block[..8].copy_from_slice(&(first_bytes * 8).to_be_bytes());
    block[8..].copy_from_slice(&(second_bytes * 8).to_be_bytes());
    block
}

enum Running {
    Blocks { step: Step, rest: Rest },
    Stream(Box<dyn StreamCipher>),
    Gcm(Box<Gcm>),
}

impl Running {
    fn new(mode: &str, encrypts: bool, key: &[u8], iv: &[u8]) -> Option<Self> {
        let step = match (mode, encrypts) {
            ("ctr", _) => return with_aes!(key, stream::<ctr_whole>(key, iv)).map(Self::Stream),
            ("gcm", _) => return Gcm::new(key, iv).map(|gcm| Self::Gcm(Box::new(gcm))),
            ("ecb", true) => with_aes!(key, encryptor::<plain>(key)),
            ("ecb", false) => with_aes!(key, decryptor::<plain>(key)),
            ("cbc", true) => with_aes!(key, chained::<cbc_in>(key, iv)),
            ("cbc", false) => with_aes!(key, unchained::<cbc_out>(key, iv)),
            _ => None,
        };
        step.map(|step| Self::Blocks { step, rest: Rest::default() })
    }
}

/// What JavaScript holds of a cipher. Its native memory is charged to the isolate like an array buffer.
pub(crate) struct Cipher {
    running: RefCell<Running>,
    encrypts: bool,
    external: Arc<External>,
}

impl Drop for Cipher {
    fn drop(&mut self) {
        self.external.release(STATE_BYTES);
    }
}

// JUSTIFICATION: objects that V8's collector owns have no other form.
// SAFETY: it holds nothing of V8's heap, so there is nothing to trace; the name is a static string.
unsafe impl GarbageCollected for Cipher {
    fn trace(&self, _visitor: &mut v8::cppgc::Visitor) {}

    fn get_name(&self) -> &'static std::ffi::CStr {
        c"Cipher"
    }
}

/// AES in a mode; the script has checked the lengths of key and vector.
#[op2]
#[cppgc]
pub(crate) fn op_node_cipher_create(
    scope: &mut v8::PinScope<'_, '_>,
    state: &mut OpState,
    #[string] mode: &str,
    encrypts: bool,
    #[buffer] key: &[u8],
    #[buffer] iv: &[u8],
) -> Result<Cipher, OutOfRange> {
    let external = Arc::clone(&isolate(state).borrow().external);
    external
        .reserve_or_collect(scope, STATE_BYTES)
        .ok_or_else(|| OutOfRange("Too many ciphers at once".into()))?;
    // From here on, dropping it gives the memory back.
    match Running::new(mode, encrypts, key, iv) {
        Some(running) => Ok(Cipher { running: RefCell::new(running), encrypts, external }),
        None => {
            external.release(STATE_BYTES);
            Err(OutOfRange("Invalid key length".into()))
        }
    }
}

/// Data that is authenticated and not encrypted, before all other data.
#[op2(fast)]
pub(crate) fn op_node_cipher_aad(
    state: &mut OpState,
    #[cppgc] cipher: &Cipher,
    #[buffer] data: &[u8],
) -> Result<(), Thrown> {
    let slot = Arc::clone(&isolate(state).borrow().slot);
    if let Running::Gcm(gcm) = &mut *cipher.running.borrow_mut() {
        for step in data.chunks(STEP_BYTES) {
            go_on(&slot)?;
            gcm.aad(step);
        }
    }
    Ok(())
}

/// The next piece, into `out`, which has room for a block more; how many bytes came. With `keep`, the last whole block stays
/// behind: it may be padding.
#[op2(fast)]
#[smi]
pub(crate) fn op_node_cipher_update(
    state: &mut OpState,
    #[cppgc] cipher: &Cipher,
    #[buffer] data: &[u8],
    keep: bool,
    #[buffer] out: &mut [u8],
) -> Result<u32, Thrown> {
    let slot = Arc::clone(&isolate(state).borrow().slot);
    if out.len() < data.len() + BLOCK_BYTES {
        return Err(Thrown("no room for the result".into()));
    }
    let mut written = 0;
    for piece in data.chunks(STEP_BYTES) {
        go_on(&slot)?;
        match &mut *cipher.running.borrow_mut() {
            Running::Blocks { step, rest } => rest.feed(piece, keep && !cipher.encrypts, |block| {
                let mut block = *block;
                step(&mut block);
                out[written..written + BLOCK_BYTES].copy_from_slice(&block);
                written += BLOCK_BYTES;
            }),
            running => {
                let out = &mut out[written..written + piece.len()];
                out.copy_from_slice(piece);
                match running {
                    Running::Gcm(gcm) => gcm.data(out, cipher.encrypts),
                    Running::Stream(stream) => stream.apply_keystream(out),
                    Running::Blocks { .. } => {}
                }
                written += piece.len();
            }
        }
    }
    Ok(u32::try_from(written).unwrap_or_default())
}

/// The end: the last block into `out`, and how many bytes of it count, or why there is none.
#[op2(fast)]
#[smi]
pub(crate) fn op_node_cipher_final(#[cppgc] cipher: &Cipher, padding: bool, #[buffer] out: &mut [u8]) -> i32 {
    let Running::Blocks { step, rest } = &mut *cipher.running.borrow_mut() else { return 0 };
    let length = rest.length;
    let mut block = Block::default();
    block[..length].copy_from_slice(rest.take());
    if out.len() < BLOCK_BYTES {
        return WRONG_LENGTH;
    }
    let counts = match (cipher.encrypts, padding) {
        (true, true) => {
            let missing = BLOCK_BYTES - length;
            block[length..].fill(missing as u8);
            step(&mut block);
            BLOCK_BYTES
        }
        (_, false) if length == 0 => 0,
        // Decrypting without padding from the middle on: a block may have stayed behind.
        (false, _) if length == BLOCK_BYTES => {
            step(&mut block);
            match padding {
                false => BLOCK_BYTES,
                true => match unpadded(&block) {
                    Some(counts) => counts,
                    None => return REJECTED,
                },
            }
        }
        _ => return WRONG_LENGTH,
    };
    out[..counts].copy_from_slice(&block[..counts]);
    counts as i32
}

/// How many bytes of the last block count (PKCS #7).
fn unpadded(block: &Block) -> Option<usize> {
    let count = usize::from(block[BLOCK_BYTES - 1]);
    let counts = BLOCK_BYTES.checked_sub(count).filter(|_| count > 0)?;
    block[counts..].iter().all(|byte| usize::from(*byte) == count).then_some(counts)
}

/// The tag of all that came, into `out`.
#[op2(fast)]
pub(crate) fn op_node_cipher_tag(#[cppgc] cipher: &Cipher, #[buffer] out: &mut [u8]) {
    if let Running::Gcm(gcm) = &mut *cipher.running.borrow_mut() {
        let tag = gcm.tag();
        let length = out.len().min(tag.len());
        out[..length].copy_from_slice(&tag[..length]);
    }
}

/// Whether this is the tag, or its beginning, compared in constant time.
#[op2(fast)]
pub(crate) fn op_node_cipher_is_tag(#[cppgc] cipher: &Cipher, #[buffer] expected: &[u8]) -> bool {
    let Running::Gcm(gcm) = &mut *cipher.running.borrow_mut() else { return false };
    let tag = gcm.tag();
    tag.get(..expected.len()).is_some_and(|tag| tag.ct_eq(expected).into())
}
