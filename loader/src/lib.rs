//! What runs: worker code in, a validated content-addressed bundle out.
//!
//! ```text
//! JSON, multipart, folder, file, execute ──▶ WorkerCode ──build: checks, strip──▶ Bundle ──encode──▶ bytes
//!                                            (unchecked)                          (proof)  ◀─decode──
//! ```
//!
//! ```
//! use atoll_loader::{Resolved, WorkerCode};
//!
//! let bundle = WorkerCode::new("main.ts")
//!     .js("main.ts", "import { n } from './lib.js';\nexport default { fetch: (): Response => new Response(n) };")
//!     .js("lib.js", "export const n = 'hello';")
//!     .build()?;
//! let Ok(Resolved::Module(lib)) = bundle.resolve("main.ts", "./lib.js") else { panic!() };
//! assert_eq!(&*bundle.module(lib).unwrap().name, "lib.js");
//! # Ok::<(), atoll_loader::CodeError>(())
//! ```
//!
//! Nothing here runs code, opens sockets or knows V8. Everything that comes in is hostile until it is a
//! [`bundle::Bundle`].
#![forbid(unsafe_code)]

pub mod bundle;
mod checks;
mod code;
pub mod compat;
mod deployment;
mod encoding;
mod error;
mod execute;
mod fingerprint;
mod folder;
mod glob;
mod imports;
mod json;
mod jsonc;
pub mod limits;
mod multipart;
mod name;
mod nesting;
mod resolve;
mod syntax;
mod upload;
pub mod uses;
mod wrangler;

pub use bundle::Bundle;
pub use checks::{CheckConfig, ForbiddenPattern, SyntaxCheck};
pub use code::{CodeLimits, ModuleSource, WorkerCode};
pub use deployment::{Deployment, Var};
pub use encoding::{DecodeError, ENCODED_BYTES_MAX};
pub use error::{CodeError, NameFault, Place};
pub use execute::{Language, Snippet};
pub use folder::FolderError;
pub use json::{JSON_BYTES_MAX, JsonError, Modules, parse as parse_json};
pub use multipart::{MULTIPART_BYTES_MAX, MultipartError};
pub use name::normalise as normalise_module_name;
pub use resolve::{ResolveError, Resolved};
pub use wrangler::{CONFIG_BYTES_MAX, ConfigError, ConfigFormat, Rule, RuleType, WranglerConfig};
