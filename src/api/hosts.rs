//! `/v1/hosts`: the isolate hosts of the whole server, for tokens of operators.

use http::header::{HeaderValue, LOCATION};
use http::{Response, StatusCode};

use super::json;
use crate::problem::Problem;
use crate::server::Gateway;
use crate::server::body::ReplyBody;

pub(super) fn list(gateway: &Gateway) -> Response<ReplyBody> {
    json(StatusCode::OK, &gateway.isolates.status())
}

/// Begins to replace every host; `GET /v1/hosts` says how far it is. Asked again meanwhile, the new ones are replaced as well.
pub(super) fn restart(gateway: &Gateway) -> Result<Response<ReplyBody>, Problem> {
    if !gateway.isolates.roll() {
        let detail = "Guests run in the gateway's own process: there are no isolate hosts to be replaced.";
        return Err(Problem::new(StatusCode::CONFLICT, "no_isolate_hosts", detail));
    }
    let mut answer = json(StatusCode::ACCEPTED, &gateway.isolates.status());
    answer.headers_mut().insert(LOCATION, HeaderValue::from_static("/v1/hosts"));
    Ok(answer)
}
