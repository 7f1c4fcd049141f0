//! What users name as `FILE.toml#NAME`: one of a file's tables of a kind.

/// A reference into a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference<'a> {
    /// The file.
    pub(crate) path: &'a str,
    name: &'a str,
}

impl<'a> Reference<'a> {
    /// `FILE.toml#NAME`, or `FILE.toml` alone; `None` for anything else.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (path, name) = text.split_once('#').unwrap_or((text, ""));
        let is_file = std::path::Path::new(path)
            .extension()
            .is_some_and(|end| end == "toml");
        is_file.then_some(Self { path, name })
    }

    /// The file's text.
    pub(crate) fn read(&self) -> Result<String, String> {
        std::fs::read_to_string(self.path).map_err(|error| error.to_string())
    }

    /// The table that is meant; one alone needs no name. `kind` is what the tables are called, `example` a command
    /// that shows one.
    pub(crate) fn choose<T: Clone>(
        &self,
        tables: &[T],
        name_of: impl Fn(&T) -> &str,
        kind: &str,
        example: &str,
    ) -> Result<T, String> {
        let names = || tables.iter().map(&name_of).collect::<Vec<_>>().join(", ");
        match (self.name, tables) {
            (_, []) => Err(format!("has no [[{kind}]]: `{example}` shows one")),
            ("", [table]) => Ok(table.clone()),
            ("", _) => Err(format!(
                "has several {kind}s: write {}#NAME, with one of {}",
                self.path,
                names()
            )),
            (name, tables) => {
                let table = tables.iter().find(|table| name_of(table) == name);
                let unknown = || format!("has no {kind} {name:?}, but {}", names());
                table.cloned().ok_or_else(unknown)
            }
        }
    }
}
