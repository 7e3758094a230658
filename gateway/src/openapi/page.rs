//! The page that shows the document and tries it. All of it comes from here, nothing from elsewhere.

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// What is in it.
    pub(crate) text: &'static str,
    /// Its type.
    pub(crate) content_type: &'static str,
}

impl Piece {
    /// What a browser may do with the page: run what came with it, call the edge, and nothing else.
    pub(crate) const POLICY: &'static str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                                             base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

    /// The file at a path.
    pub(crate) fn at(path: &str) -> Option<Self> {
        let (text, content_type) = match path {
            "/docs" => (include_str!("page.html"), "text/html; charset=utf-8"),
            "/docs/page.js" => (include_str!("page.js"), "text/javascript; charset=utf-8"),
            "/docs/page.css" => (include_str!("page.css"), "text/css; charset=utf-8"),
            _ => return None,
        };
        Some(Self { text, content_type })
    }
}
