//! The compatibility flags that code written for Workers may name, with the dates that imply them.
//!
//! Knowing a flag means: accepting it and passing it to the runtime. Many change nothing in Atoll, because it
//! always behaves as the newest date asks; they are accepted so that such code runs unmodified.

/// When a switch is on without being named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByDefault {
    /// Never.
    Off,
    /// At every date.
    Always,
    /// From this date on.
    Since(&'static str),
    /// From this date on, if one of these switches is on.
    With(&'static str, &'static [&'static str]),
    /// The same, and from the last date on in any case.
    WithOrSince(&'static str, &'static [&'static str], &'static str),
    /// Never, and only with `allowExperimental`.
    Experimental,
}

/// One switch: a flag that turns it on, and perhaps one that turns it off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Switch {
    pub(crate) enable: &'static str,
    pub(crate) disable: Option<&'static str>,
    pub(crate) default: ByDefault,
}

const fn on(enable: &'static str, default: ByDefault) -> Switch {
    Switch { enable, disable: None, default }
}

const fn both(enable: &'static str, disable: &'static str, default: ByDefault) -> Switch {
    Switch { enable, disable: Some(disable), default }
}

use ByDefault::{Always, Experimental, Off, Since, With, WithOrSince};

const NODE: &[&str] = &["nodejs_compat"];

/// All switches. A switch comes after those that imply it.
pub(crate) const SWITCHES: &[Switch] = &[
    // Atoll's own.
    on("dynamic_worker_inherits_outbound", Off),
    // Web platform.
    both("formdata_parser_supports_files", "formdata_parser_converts_files_to_strings", Since("2021-11-03")),
    both("fetch_refuses_unknown_protocols", "fetch_treats_unknown_protocols_as_http", Since("2021-11-10")),
    on("html_rewriter_treats_esi_include_as_void_tag", Off),
    both(
        "durable_object_fetch_requires_full_url",
        "durable_object_fetch_allows_relative_url",
        Since("2021-11-10"),
    ),
    both(
        "streams_byob_reader_detaches_buffer",
        "streams_byob_reader_does_not_detach_buffer",
        Since("2021-11-10"),
    ),
    both("streams_enable_constructors", "streams_disable_constructors", Since("2022-11-30")),
    both(
        "workers_api_getters_setters_on_prototype",
        "workers_api_getters_setters_on_instance",
        Since("2022-01-31"),
    ),
    both("minimal_subrequests", "no_minimal_subrequests", Since("2022-04-05")),
    both("no_cots_on_external_fetch", "cots_on_external_fetch", Since("2022-03-08")),
    both("url_standard", "url_original", Since("2022-10-31")),
    both("global_navigator", "no_global_navigator", Since("2022-03-21")),
    both("capture_async_api_throws", "do_not_capture_async_api_throws", Since("2022-10-31")),
    both("r2_public_beta_bindings", "r2_internal_beta_bindings", Always),
    on("durable_object_alarms", Off),
    both("dont_substitute_null_on_type_error", "substitute_null_on_type_error", Since("2022-06-01")),
    both(
        "transformstream_enable_standard_constructor",
        "transformstream_disable_standard_constructor",
        Since("2022-11-30"),
    ),
    on("r2_list_honor_include", Since("2022-08-04")),
    both("export_commonjs_default", "export_commonjs_namespace", Since("2022-10-31")),
    both("web_socket_compression", "no_web_socket_compression", Since("2023-08-15")),
    both("websocket_close_reason_byte_limit", "no_websocket_close_reason_byte_limit", Since("2026-03-03")),
    both("websocket_standard_binary_type", "no_websocket_standard_binary_type", Since("2026-03-17")),
    both("web_socket_auto_reply_to_close", "web_socket_manual_reply_to_close", Since("2026-04-07")),
    on("tcp_sockets_support", Off),
    both("response_redirect_url_standard", "response_redirect_url_original", Since("2023-03-14")),
    both("http_headers_getsetcookie", "no_http_headers_getsetcookie", Since("2023-03-01")),
    both(
        "dynamic_dispatch_tunnel_exceptions",
        "dynamic_dispatch_treat_exceptions_as_500",
        Since("2023-03-01"),
    ),
    both("no_cf_botmanagement_default", "cf_botmanagement_default", Since("2023-08-01")),
    both(
        "urlsearchparams_delete_has_value_arg",
        "no_urlsearchparams_delete_has_value_arg",
        Since("2023-07-01"),
    ),
    both("strict_compression_checks", "no_strict_compression_checks", Since("2023-08-01")),
    both("brotli_content_encoding", "no_brotli_content_encoding", Since("2024-04-29")),
    both("strict_crypto_checks", "no_strict_crypto_checks", Since("2023-08-01")),
    both("crypto_preserve_public_exponent", "no_crypto_preserve_public_exponent", Since("2023-12-01")),
    both("vectorize_query_metadata_optional", "vectorize_query_original", Since("2023-11-08")),
    both("no_global_importscripts", "global_importscripts", Since("2024-03-04")),
    both("queues_json_messages", "no_queues_json_messages", Since("2024-03-18")),
    both("fetcher_no_get_put_delete", "fetcher_has_get_put_delete", Since("2024-03-26")),
    both("unwrap_custom_thenables", "no_unwrap_custom_thenables", Since("2024-04-01")),
    both("rpc", "no_rpc", Since("2024-04-03")),
    both("internal_stream_byob_return_view", "internal_stream_byob_return_undefined", Since("2024-05-13")),
    both("blob_standard_mime_type", "blob_legacy_mime_type", Since("2024-06-03")),
    both("fetch_standard_url", "fetch_legacy_url", Since("2024-06-03")),
    both("global_fetch_strictly_public", "global_fetch_private_origin", Off),
    both("cache_option_enabled", "cache_option_disabled", Since("2024-11-11")),
    both("cache_no_cache_enabled", "cache_no_cache_disabled", With("2025-08-07", &["cache_option_enabled"])),
    both("allow_custom_ports", "ignore_custom_ports", Since("2024-09-02")),
    both(
        "internal_writable_stream_abort_clears_queue",
        "internal_writable_stream_abort_does_not_clear_queue",
        Since("2024-09-02"),
    ),
    both(
        "handle_cross_request_promise_resolution",
        "no_handle_cross_request_promise_resolution",
        Since("2024-10-14"),
    ),
    both("set_tostring_tag", "do_not_set_tostring_tag", Since("2024-09-26")),
    both("upper_case_all_http_methods", "no_upper_case_all_http_methods", Since("2024-10-14")),
    both("disable_top_level_await_in_require", "enable_top_level_await_in_require", Since("2024-12-02")),
    both(
        "fixup-transform-stream-backpressure",
        "original-transform-stream-backpressure",
        Since("2024-12-16"),
    ),
    both("request_cf_overrides_cache_rules", "no_request_cf_overrides_cache_rules", Since("2025-04-02")),
    on("unique_ctx_per_invocation", Since("2025-03-10")),
    on("nonclass_entrypoint_reuses_ctx_across_invocations", Off),
    both("queue_consumer_no_wait_for_wait_until", "queue_consumer_wait_for_wait_until", Off),
    both(
        "cache_api_request_cf_overrides_cache_rules",
        "no_cache_api_request_cf_overrides_cache_rules",
        Since("2025-05-19"),
    ),
    both("disallow_importable_env", "allow_importable_env", Off),
    both("assets_navigation_prefers_asset_serving", "assets_navigation_has_no_effect", Since("2025-04-01")),
    both("cache_api_compat_flags", "no_cache_api_compat_flags", Since("2025-04-19")),
    both("urlpattern_standard", "urlpattern_original", Since("2025-05-01")),
    both("enable_weak_ref", "disable_weak_ref", Since("2025-05-05")),
    both("request_signal_passthrough", "no_request_signal_passthrough", Off),
    both("enable_navigator_language", "disable_navigator_language", Since("2025-05-19")),
    both("allow_eval_during_startup", "disallow_eval_during_startup", Since("2025-06-01")),
    both("enable_request_signal", "disable_request_signal", Off),
    both(
        "bind_asynclocalstorage_snapshot_to_request",
        "do_not_bind_asynclocalstorage_snapshot_to-request",
        Since("2025-06-16"),
    ),
    both(
        "throw_on_unrecognized_import_assertion",
        "ignore_unrecognized_import_assertion",
        Since("2025-06-16"),
    ),
    both("set_event_target_this", "no_set_event_target_this", Since("2025-08-01")),
    both("set_forwardable_email_full_headers", "set_forwardable_email_single_headers", Since("2025-08-01")),
    both("pedantic_wpt", "non_pedantic_wpt", Off),
    both("expose_global_message_channel", "no_expose_global_message_channel", Since("2025-08-15")),
    both("enable_validate_workflow_entrypoint", "disable_validate_workflow_entrypoint", Since("2025-09-20")),
    both(
        "strip_authorization_on_cross_origin_redirect",
        "retain_authorization_on_cross_origin_redirect",
        Since("2025-09-01"),
    ),
    both("enable_global_performance_classes", "disable_global_performance_classes", Since("2025-09-21")),
    both("enable_ctx_exports", "disable_ctx_exports", Since("2025-11-17")),
    both("rpc_params_dup_stubs", "rpc_params_transfer_ownership", Since("2026-01-20")),
    both("enhanced_error_serialization", "legacy_error_serialization", Since("2026-04-21")),
    // Node.js.
    both("nodejs_compat", "no_nodejs_compat", Since("2026-08-04")),
    both("nodejs_als", "no_nodejs_als", Off),
    both("nodejs_compat_v2", "no_nodejs_compat_v2", WithOrSince("2024-09-23", NODE, "2026-08-04")),
    both("nodejs_zlib", "no_nodejs_zlib", With("2024-09-23", &["nodejs_compat", "nodejs_compat_v2"])),
    both(
        "nodejs_compat_populate_process_env",
        "nodejs_compat_do_not_populate_process_env",
        With("2025-04-01", NODE),
    ),
    both("enable_nodejs_process_v2", "disable_nodejs_process_v2", With("2025-09-15", NODE)),
    both("enable_nodejs_http_modules", "disable_nodejs_http_modules", With("2025-08-15", NODE)),
    both(
        "enable_nodejs_http_server_modules",
        "disable_nodejs_http_server_modules",
        With("2025-09-01", &["enable_nodejs_http_modules"]),
    ),
    both("enable_nodejs_fs_module", "disable_nodejs_fs_module", With("2025-09-15", NODE)),
    both("enable_nodejs_os_module", "disable_nodejs_os_module", With("2025-09-15", NODE)),
    both("remove_nodejs_compat_eol", "add_nodejs_compat_eol", With("2025-09-01", NODE)),
    both("enable_nodejs_http2_module", "disable_nodejs_http2_module", With("2025-09-01", NODE)),
    both("enable_nodejs_console_module", "disable_nodejs_console_module", With("2025-09-21", NODE)),
    both("enable_nodejs_global_timers", "no_nodejs_global_timers", With("2026-02-10", NODE)),
    both("enable_nodejs_vm_module", "disable_nodejs_vm_module", With("2025-10-01", NODE)),
    // Experimental.
    on("experimental", Experimental),
    on("durable_object_rename", Experimental),
    on("durable_object_get_existing", Experimental),
    on("service_binding_extra_handlers", Experimental),
    on("js_rpc", Experimental),
    both("new_module_registry", "legacy_module_registry", Experimental),
    on("tail_worker_user_spans", Experimental),
    on("streaming_tail_worker", Experimental),
    on("enable_web_file_system", Experimental),
    on("enable_abortsignal_rpc", Experimental),
    on("connect_pass_through", Experimental),
    on("typescript_strip_types", Experimental),
    both("enable_nodejs_perf_hooks_module", "disable_nodejs_perf_hooks_module", Experimental),
    both("enable_nodejs_worker_threads_module", "disable_nodejs_worker_threads_module", Experimental),
];
