//! Blobs of one isolate. Their bytes live in Rust, where no heap limit sees them: they count as external memory.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use deno_core::OpState;
use deno_core::url::Url;
use deno_web::{Blob, BlobPart, BlobStore, BlobStoreTrait};
use uuid::Uuid;

use crate::memory::External;
use crate::watchdog::{Slot, Verdict};

/// What a part costs beside its bytes.
const PART_BYTES: usize = 128;

type Part = Arc<dyn BlobPart + Send + Sync>;

/// A blob store that charges what it keeps.
#[derive(Debug)]
pub(crate) struct Blobs {
    store: BlobStore,
    external: Arc<External>,
    slot: Arc<Slot>,
    /// Bytes kept.
    kept: Arc<AtomicUsize>,
    /// Bytes kept at which it is worth to look for garbage.
    collect_at: AtomicUsize,
}

impl Blobs {
    pub(crate) fn new(external: &Arc<External>, slot: &Arc<Slot>) -> Arc<Self> {
        let store = BlobStore::default();
        Arc::new(Self {
            store,
            external: Arc::clone(external),
            slot: Arc::clone(slot),
            kept: Arc::default(),
            collect_at: AtomicUsize::new(0),
        })
    }

    /// V8 does not know what blobs weigh, and would never look for those that nobody uses: true if it should look now.
    pub(crate) fn want_collection(&self) -> bool {
        let kept = self.kept.load(Relaxed);
        let usual = self.external.cap_bytes() / 2;
        if kept < usual {
            self.collect_at.store(usual, Relaxed);
            return false;
        }
        let wanted = kept >= self.collect_at.load(Relaxed);
        if wanted {
            // What is garbage now goes only when the finalisers ran: wait for some more before the next look.
            self.collect_at.store(kept + usual / 4, Relaxed);
        }
        wanted
    }
}

impl BlobStoreTrait for Blobs {
    fn insert_part(&self, part: Part) -> Uuid {
        // A slice is counted as if it were a copy: it keeps its whole source alive.
        let bytes = part.size().saturating_add(PART_BYTES);
        if !self.external.reserve(bytes) {
            // There is no way to refuse here: the guest ends, and the part is not kept.
            self.slot.stop(Verdict::External);
            return Uuid::nil();
        }
        self.kept.fetch_add(bytes, Relaxed);
        let (external, kept) = (Arc::clone(&self.external), Arc::clone(&self.kept));
        self.store.insert_part(Arc::new(Charged { part, bytes, external, kept }))
    }

    fn get_part(&self, id: &Uuid) -> Option<Part> {
        self.store.get_part(id)
    }

    fn remove_part(&self, id: &Uuid) -> Option<Part> {
        self.store.remove_part(id)
    }

    fn get_object_url(&self, url: Url) -> Option<Arc<Blob>> {
        self.store.get_object_url(url)
    }

    fn insert_object_url(&self, blob: Blob, location: Option<Url>) -> Url {
        self.store.insert_object_url(blob, location)
    }

    fn remove_object_url(&self, url: &Url) {
        self.store.remove_object_url(url);
    }

    fn clear(&self) {
        self.store.clear();
    }
}

/// Adds the bytes of a part. All parts are in memory (there are no files here), so that reading one never waits.
pub(crate) fn append(state: &OpState, id: &Uuid, bytes: &mut Vec<u8>) {
    let Some(part) = state.borrow::<Arc<dyn BlobStoreTrait>>().get_part(id) else { return };
    let mut context = Context::from_waker(Waker::noop());
    if let Poll::Ready(read) = part.read().as_mut().poll(&mut context) {
        bytes.extend_from_slice(read);
    }
}

/// A part that gives its bytes back when it goes.
#[derive(Debug)]
struct Charged {
    part: Part,
    bytes: usize,
    external: Arc<External>,
    kept: Arc<AtomicUsize>,
}

impl BlobPart for Charged {
    fn read<'a, 'f>(&'a self) -> Pin<Box<dyn Future<Output = &'a [u8]> + Send + 'f>>
    where
        'a: 'f,
        Self: 'f,
    {
        self.part.read()
    }

    fn size(&self) -> usize {
        self.part.size()
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.external.release(self.bytes);
        self.kept.fetch_sub(self.bytes, Relaxed);
    }
}
