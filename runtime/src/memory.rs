//! The two memories of an isolate and their caps: V8's heap, and array buffers outside it.
//!
//! A heap limit is not a memory limit: array buffers live outside. They go through an allocator that counts,
//! caps and always zeroes (a buffer must never show what another tenant freed).

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::watchdog::{Slot, Verdict, now_us};

/// Counts array-buffer bytes of one isolate.
#[derive(Debug)]
pub(crate) struct External {
    used: AtomicUsize,
    peak: AtomicUsize,
    cap: AtomicUsize,
}

/// Alignment of array buffers, in bytes: enough for every typed array and for SIMD.
const BUFFER_ALIGN_BYTES: usize = 16;
const _: () = assert!(BUFFER_ALIGN_BYTES.is_power_of_two());

impl External {
    pub(crate) fn new(cap_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            cap: AtomicUsize::new(cap_bytes),
        })
    }

    pub(crate) fn set_cap(&self, bytes: usize) {
        self.cap.store(bytes, Relaxed);
    }

    pub(crate) fn cap_bytes(&self) -> usize {
        self.cap.load(Relaxed)
    }

    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak.load(Relaxed) as u64
    }

    /// Reserves before allocating: check, then add, so that the sum cannot wrap.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let cap = self.cap.load(Relaxed);
        let taken = self
            .used
            .fetch_update(Relaxed, Relaxed, |used| used.checked_add(bytes).filter(|after| *after <= cap));
        if let Ok(before) = taken {
            self.peak.fetch_max(before + bytes, Relaxed);
        }
        taken.is_ok()
    }

    /// The same, for what is freed when V8 collects its owner: much of what is held may be garbage.
    pub(crate) fn reserve_or_collect(&self, isolate: &mut v8::Isolate, bytes: usize) -> Option<()> {
        if self.reserve(bytes) {
            return Some(());
        }
        isolate.low_memory_notification();
        self.reserve(bytes).then_some(())
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }

    /// V8's allocator for one isolate.
    pub(crate) fn allocator(self: &Arc<Self>) -> v8::UniqueRef<v8::Allocator> {
        let handle = Arc::into_raw(Arc::clone(self));
        // JUSTIFICATION: V8 takes a raw handle with a table of functions; there is no safe form.
        // SAFETY: `handle` came from `Arc::into_raw` and is given back exactly once, in `drop_handle`; every
        // function of the table only reads through `&External`, which is `Sync`.
        unsafe { v8::new_rust_allocator(handle, &VTABLE) }
    }
}

static VTABLE: v8::RustAllocatorVtable<External> = v8::RustAllocatorVtable {
    allocate: allocate_zeroed,
    // Uninitialised memory would be another tenant's: the "uninitialised" form is zeroed too.
    allocate_uninitialized: allocate_zeroed,
    free,
    drop: drop_handle,
};

fn layout(len: usize) -> Option<Layout> {
    Layout::from_size_align(len.max(1), BUFFER_ALIGN_BYTES).ok()
}

unsafe extern "C" fn allocate_zeroed(external: &External, len: usize) -> *mut c_void {
    let Some(layout) = layout(len) else { return std::ptr::null_mut() };
    if !external.reserve(len) {
        return std::ptr::null_mut();
    }
    // SAFETY: the layout's size is at least one byte.
    let data = unsafe { alloc_zeroed(layout) };
    if data.is_null() {
        external.release(len);
    }
    data.cast()
}

unsafe extern "C" fn free(external: &External, data: *mut c_void, len: usize) {
    let Some(layout) = layout(len) else { return };
    external.release(len);
    // SAFETY: V8 frees what `allocate_zeroed` returned, with the same length, once.
    unsafe { dealloc(data.cast(), layout) };
}

unsafe extern "C" fn drop_handle(external: *const External) {
    // SAFETY: the pointer came from `Arc::into_raw` in `allocator`, and V8 drops the allocator once.
    drop(unsafe { Arc::from_raw(external) });
}

/// What V8's near-heap-limit hook needs; lives as long as its isolate.
pub(crate) struct HeapGuard {
    slot: Arc<Slot>,
    isolate: v8::UnsafeRawIsolatePtr,
    /// The limit at creation, in bytes. What V8 calls the initial limit changes with each hit.
    heap_bytes_max: usize,
}

impl HeapGuard {
    /// Watches the isolate's heap. Keep the box until the isolate is dropped.
    pub(crate) fn watch(
        isolate: &mut v8::OwnedIsolate,
        slot: &Arc<Slot>,
        heap_bytes_max: usize,
    ) -> Box<Self> {
        // JUSTIFICATION: the hook gets no isolate, and must ask how full its heap really is.
        // SAFETY: the pointer is used only inside the hook, which V8 calls while the isolate is alive.
        let raw = unsafe { isolate.as_raw_isolate_ptr() };
        let mut guard = Box::new(Self { slot: Arc::clone(slot), isolate: raw, heap_bytes_max });
        let _first = isolate.set_slot(Arc::clone(slot));
        let nothing = std::ptr::null_mut();
        isolate.add_gc_prologue_callback(gc_begins, nothing, v8::GCType::kGCTypeAll);
        isolate.add_gc_epilogue_callback(gc_ends, nothing, v8::GCType::kGCTypeAll);
        isolate.add_near_heap_limit_callback(near_heap_limit, (&raw mut *guard).cast());
        guard
    }
}

/// Times its limit that a heap may hold while its guest unwinds.
const UNWINDING_TIMES_MAX: usize = 4;
/// What V8 may hold outside its heap beyond the limit: garbage that it did not look for yet, in bytes.
const EXTERNAL_SLACK_BYTES: u64 = 16 * 1024 * 1024;

/// Called by V8 when the heap is nearly full: stops the guest and gives it room to unwind.
///
/// V8 aborts the process if the limit it gets back is too small for what it is about to allocate, so the first
/// hit doubles it. A heap that grows on to several times its limit belongs to native code that does not look up:
/// the host is condemned, and this thread stands still until the process ends, so that it takes no more memory and
/// no more time from the others.
///
/// V8 also calls this when an array buffer cannot be had although the heap itself has room: that is the guest's
/// `RangeError`, not the end of it.
unsafe extern "C" fn near_heap_limit(data: *mut c_void, current: usize, _initial: usize) -> usize {
    // SAFETY: `data` is the `HeapGuard` that the isolate's owner keeps until the isolate is gone.
    let guard = unsafe { &*data.cast::<HeapGuard>() };
    // SAFETY: the isolate is alive: it is calling us, on its own thread. `Isolate` does not dispose on drop.
    let mut isolate = unsafe { v8::Isolate::from_raw_isolate_ptr(guard.isolate) };
    if isolate.get_heap_statistics().used_heap_size() < guard.heap_bytes_max / 2 {
        return current.saturating_add(1);
    }
    if guard.slot.stop(Verdict::Heap) {
        return current.saturating_mul(2);
    }
    if current < guard.heap_bytes_max.saturating_mul(UNWINDING_TIMES_MAX) {
        return current.saturating_add(guard.heap_bytes_max);
    }
    guard.slot.condemn();
    loop {
        std::thread::park();
    }
}

/// Garbage collection cannot be stopped, but it ends: the watchdog is told.
unsafe extern "C" fn gc_begins(
    isolate: v8::UnsafeRawIsolatePtr,
    _: v8::GCType,
    _: v8::GCCallbackFlags,
    _: *mut c_void,
) {
    with_slot(isolate, Slot::collection_begins);
}

unsafe extern "C" fn gc_ends(
    isolate: v8::UnsafeRawIsolatePtr,
    _: v8::GCType,
    _: v8::GCCallbackFlags,
    _: *mut c_void,
) {
    with_slot(isolate, Slot::collection_ends);
}

fn with_slot(isolate: v8::UnsafeRawIsolatePtr, tell: impl FnOnce(&Slot)) {
    // SAFETY: V8 calls the hooks on the isolate's own thread. `Isolate` does not dispose on drop.
    let isolate = unsafe { v8::Isolate::from_raw_isolate_ptr(isolate) };
    if let Some(slot) = isolate.get_slot::<Arc<Slot>>() {
        tell(slot);
    }
}

/// Looks at the memory of an isolate that is inside JavaScript; V8 calls it there when the watchdog asks.
pub(crate) unsafe extern "C" fn sample(isolate: v8::UnsafeRawIsolatePtr, _nothing: *mut c_void) {
    // SAFETY: V8 calls this on the isolate's own thread. `Isolate` does not dispose on drop.
    let mut isolate = unsafe { v8::Isolate::from_raw_isolate_ptr(isolate) };
    let Some(slot) = isolate.get_slot::<Arc<Slot>>().map(Arc::clone) else { return };
    look(&mut isolate, &slot);
}

/// Notes what the isolate holds, and stops it if that is too much outside the heap.
pub(crate) fn look(isolate: &mut v8::Isolate, slot: &Slot) {
    slot.sampled_at.store(now_us(), Relaxed);
    if !look_outside(isolate, slot) {
        // Much of it may be garbage.
        isolate.low_memory_notification();
        if !look_outside(isolate, slot) {
            slot.stop(Verdict::External);
        }
    }
    let statistics = isolate.get_heap_statistics();
    let inside = (statistics.used_heap_size() + statistics.malloced_memory()) as u64;
    slot.memory.store(inside + outside_bytes(isolate), Relaxed);
}

/// Notes what the isolate holds outside its heap; false if that is more than it may. Cheap enough for every turn.
pub(crate) fn look_outside(isolate: &mut v8::Isolate, slot: &Slot) -> bool {
    let outside = outside_bytes(isolate);
    slot.external_peak.fetch_max(outside, Relaxed);
    outside <= slot.external_max.load(Relaxed).saturating_add(EXTERNAL_SLACK_BYTES)
}

/// What V8 holds for the isolate outside its heap, in bytes: array buffers, and what does not pass the allocator, which is
/// WebAssembly memories and the buffers of native code. V8's statistics leave out WebAssembly memories; its count of
/// external memory has them, with every growth, also of those that no JavaScript can reach.
fn outside_bytes(isolate: &mut v8::Isolate) -> u64 {
    u64::try_from(isolate.adjust_amount_of_external_allocated_memory(0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_holds_and_nothing_wraps() {
        let external = External::new(100);
        assert!(external.reserve(60));
        assert!(!external.reserve(60));
        assert!(!external.reserve(usize::MAX));
        assert!(external.reserve(40));
        external.release(100);
        assert_eq!(external.peak_bytes(), 100);
        assert!(external.reserve(100));
    }
}
