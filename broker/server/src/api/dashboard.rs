//! The dashboard: one page and what it loads, all of it in the binary.
//!
//! Promises: the page runs no script but ours and speaks to no host but this one (Content-Security-Policy); it is small. Anybody may load it: what it shows it asks of the API, with the token that its user types.

use axum::Router;
use axum::http::header;
use axum::routing::get;

/// The page and what it loads.
pub(crate) fn routes() -> Router {
    FILES.iter().fold(Router::new(), |routes, file| {
        let File(path, media_type, text) = *file;
        let headers = [
            (header::CONTENT_TYPE, media_type),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        routes.route(path, get(move || async move { (headers, text) }))
    })
}

/// Path, media type, text.
#[derive(Copy, Clone)]
struct File(&'static str, &'static str, &'static str);

const CSS: &str = "text/css; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($path:literal $media_type:ident $name:literal)*) => {
        &[$(File($path, $media_type, include_str!(concat!("../../dashboard/", $name)))),*]
    };
}

const FILES: &[File] = files![
    "/" HTML "index.html"
    "/dashboard/style.css" CSS "style.css"
    "/dashboard/app.js" SCRIPT "app.js"
    "/dashboard/api.js" SCRIPT "api.js"
    "/dashboard/dom.js" SCRIPT "dom.js"
    "/dashboard/overview.js" SCRIPT "overview.js"
    "/dashboard/clients.js" SCRIPT "clients.js"
    "/dashboard/messages.js" SCRIPT "messages.js"
    "/dashboard/mqtt.js" SCRIPT "mqtt.js"
    "/dashboard/tool.js" SCRIPT "tool.js"
];
/// What the page may do.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::*;

    /// All files together are smaller.
    const BYTES_MAX: usize = 200_000;

    #[test]
    fn the_page_is_small_and_knows_no_other_host() {
        let bytes: usize = FILES.iter().map(|File(.., text)| text.len()).sum();
        assert!(bytes < BYTES_MAX, "{bytes}");
        for File(path, _, text) in FILES {
            // The name of a namespace is no address that is asked for.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for url in ["http:", "https:", "ws:", "//cdn"] {
                let found = text.find(url).map(|at| text.get(at..at + 40));
                assert_eq!(found, None, "{path}");
            }
        }
    }

    #[test]
    fn what_the_broker_says_never_becomes_markup() {
        let html = FILES
            .iter()
            .find(|File(_, media_type, _)| *media_type == HTML);
        let Some(File(.., html)) = html else {
            return assert!(html.is_some());
        };
        for inline in [" style=", " onclick=", "<style", "<script>"] {
            assert!(!html.contains(inline), "{inline}");
        }
        for File(path, _, text) in FILES {
            for sink in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(!text.contains(sink), "{path}: {sink}");
            }
        }
    }
}
