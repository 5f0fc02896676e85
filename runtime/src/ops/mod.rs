//! What JavaScript can ask of Rust. Only the prelude and the lazy scripts hold these functions.
//!
//! Every number that comes in is looked up among what this isolate was given; an unknown one does nothing or throws.
//! Ops never panic: a panic under V8's frames would take the whole process.

mod body;
mod cipher;
mod digest;
mod invocation;
mod node;
mod rpc;
mod script;
mod socket;
mod worker;

use std::cell::RefCell;
use std::rc::Rc;

use deno_core::{Extension, OpState};

use crate::state::IsolateState;

deno_core::extension!(
    atoll,
    deps = [deno_webidl, deno_web],
    ops = [
        body::op_body_open,
        body::op_body_read,
        body::op_body_stop,
        body::op_body_write,
        body::op_body_end,
        body::op_body_abort,
        body::op_utf8_decode,
        invocation::op_call,
        invocation::op_call_cancel,
        invocation::op_clock_ms,
        invocation::op_invocation_failed,
        invocation::op_log,
        invocation::op_respond,
        invocation::op_returned,
        invocation::op_settled,
        invocation::op_timer_set,
        invocation::op_trace_exception,
        invocation::op_trace_log,
        invocation::op_url_parse_href,
        digest::op_node_hash_create,
        digest::op_node_hash_update,
        digest::op_node_hash_digest,
        digest::op_node_hash_copy,
        digest::op_node_pbkdf2,
        digest::op_node_hkdf,
        digest::op_node_scrypt,
        cipher::op_node_cipher_create,
        cipher::op_node_cipher_aad,
        cipher::op_node_cipher_update,
        cipher::op_node_cipher_final,
        cipher::op_node_cipher_tag,
        cipher::op_node_cipher_is_tag,
        node::op_is_ascii,
        node::op_is_utf8,
        node::op_transcode,
        node::op_node_buffer_compare,
        node::op_node_buffer_compare_offset,
        node::op_node_encoding_slice,
        node::op_node_get_own_non_index_properties,
        node::op_node_idna_domain_to_ascii,
        node::op_node_idna_domain_to_unicode,
        node::op_node_idna_punycode_decode,
        node::op_node_idna_punycode_encode,
        node::op_node_idna_punycode_to_ascii,
        node::op_node_idna_punycode_to_unicode,
        node::op_node_idna_to_ascii,
        rpc::op_rpc_blob,
        rpc::op_rpc_pack,
        rpc::op_rpc_drop,
        rpc::op_rpc_dispose_with,
        rpc::op_rpc_send,
        rpc::op_rpc_return,
        rpc::op_rpc_take,
        rpc::op_rpc_export,
        rpc::op_rpc_own_stub,
        rpc::op_rpc_dup,
        rpc::op_rpc_release,
        rpc::op_rpc_own_entrypoint,
        rpc::op_rpc_flag,
        script::op_script_load,
        socket::op_socket_close,
        socket::op_socket_drop,
        socket::op_socket_in,
        socket::op_socket_next,
        socket::op_socket_send,
        socket::op_socket_splice,
        worker::op_worker_load,
        worker::op_worker_find,
        worker::op_worker_entrypoint,
        worker::op_worker_dispose,
    ],
);

/// The extension with Atoll's own ops.
pub(crate) fn extension() -> Extension {
    atoll::init()
}

/// The isolate's state.
fn isolate(state: &OpState) -> Rc<RefCell<IsolateState>> {
    Rc::clone(state.borrow::<Rc<RefCell<IsolateState>>>())
}

/// An error that JavaScript sees as a plain `Error`.
#[derive(Debug, thiserror::Error, deno_error::JsError)]
#[class(generic)]
#[error("{0}")]
pub(crate) struct Thrown(pub(crate) String);

/// An error that JavaScript sees as a `RangeError`.
#[derive(Debug, thiserror::Error, deno_error::JsError)]
#[class(range)]
#[error("{0}")]
pub(crate) struct OutOfRange(pub(crate) String);
