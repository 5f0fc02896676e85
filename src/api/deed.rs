//! What is changed through the control API, told once: an event, and a record in the audit log that had its room before anything
//! was changed.
//!
//! ```text
//!  authorised ─▶ Deed::begin (room in the log, or 503) ─▶ handler ─▶ done(answer, what it did) ─▶ Deed::end ─┬▶ event
//!                                                            └ a problem: its code ─────────────────────────▶└▶ record
//!                                                            └ the client went away: `canceled` ────────────────▶ record
//! ```

use std::sync::Arc;

use http::{HeaderMap, Response};

use super::{Action, auth};
use crate::admission::Denied;
use crate::audit::entry::Control;
use crate::audit::{Audit, Place};
use crate::config::Name;
use crate::deploy::now_ms;
use crate::kv::is_namespace_name;
use crate::observe::AccessEvent;
use crate::problem::Problem;
use crate::server::Gateway;
use crate::server::body::ReplyBody;

/// What a handler did about secrets, proxies, tokens and identities. Never holds a value.
#[derive(Clone, Debug)]
struct Done {
    /// `secret`, `proxy`, `token`, `identity`, `delegation` or `revocation`.
    what: &'static str,
    name: String,
    /// `put`, `delete`, `create`, `mint` or `revoke`.
    action: &'static str,
    /// The version, the scopes, the origin or the audience.
    detail: String,
}

/// Says with an answer what was done, for [`Deed::end`].
pub(super) fn done(
    mut answer: Response<ReplyBody>,
    what: &'static str,
    name: &str,
    action: &'static str,
    detail: &str,
) -> Response<ReplyBody> {
    let (name, detail) = (name.to_owned(), detail.to_owned());
    answer.extensions_mut().insert(Done { what, name, action, detail });
    answer
}

/// A change that is being made. One that is dropped open may have been made or not: its client went away.
pub(super) struct Deed {
    audit: Audit,
    open: Option<(Place, Control)>,
    /// Whether a tenant may do it so often that it is rather counted.
    is_frequent: bool,
}

impl Deed {
    /// Before something is changed; `None` if the action changes nothing.
    pub(super) fn begin(
        gateway: &Gateway,
        action: Action,
        (tenant, actor): (Arc<str>, String),
        name: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Option<Self>, Problem> {
        let Some(named) = action.changes() else { return Ok(None) };
        let place = gateway.audit.place().map_err(|_| Problem::from(Denied::Audit))?;
        // Not whatever a client put into a path.
        let legal = |name: &&str| match action {
            Action::DeleteKv | Action::PutKv | Action::RemoveKv => is_namespace_name(name),
            _ => Name::parse(name).is_some(),
        };
        let name = name.filter(legal).map(str::to_owned);
        let (worker, name) = if action.is_about_a_worker() { (name, None) } else { (None, name) };
        let control = Control {
            time: 0,
            tenant,
            worker,
            name,
            token: auth::token_id(headers),
            actor,
            action: named,
            detail: String::new(),
            outcome: "canceled",
        };
        let audit = gateway.audit.clone();
        Ok(Some(Self { audit, open: Some((place, control)), is_frequent: action.is_frequent() }))
    }

    /// Tells what became of it.
    pub(super) fn end(mut self, gateway: &Gateway, answer: &mut Result<Response<ReplyBody>, Problem>) {
        let Some((_, control)) = &mut self.open else { return };
        control.outcome = match answer {
            Ok(answer) => {
                if let Some(done) = answer.extensions_mut().remove::<Done>() {
                    let Done { what, name, action, detail } = done;
                    let (tenant, actor) = (&*control.tenant, control.actor.as_str());
                    let event = AccessEvent { tenant, actor, what, name: &name, action, detail: &detail };
                    gateway.access.tell(&event);
                    (control.name, control.detail) = (Some(name), detail);
                }
                "done"
            }
            Err(problem) => problem.code(),
        };
    }
}

impl Drop for Deed {
    fn drop(&mut self) {
        if let Some((place, mut control)) = self.open.take() {
            control.time = now_ms();
            self.audit.control(place, control, self.is_frequent);
        }
    }
}
