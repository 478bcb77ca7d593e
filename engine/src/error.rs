//! One error type: what went wrong, where, and what to do.

use std::fmt;
use std::sync::Arc;

use crate::batch::RowPosition;
use crate::graph::Graph;

/// The result of everything in Mainstem that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing has to change for the error to go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Pipeline,
    Data,
    Environment,
    Bug,
}

/// An error that says what was expected, what was found, where, and what to do.
///
/// `Display` prints this error alone: the main line, the place, details and the hint.
/// [`Error::report`] prints the chain of causes too.
/// Errors are cheap to clone, so that the first failure of a run can be kept and returned.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    class: Class,
    message: String,
    at: Option<At>,
    details: Vec<String>,
    hint: Option<String>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    others: Vec<Error>,
    stopped: bool,
}

/// A node of the graph.
#[derive(Clone)]
struct At {
    /// What it is, where the graph is known.
    noun: &'static str,
    id: String,
}

impl Error {
    fn new(class: Class, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            class,
            message: message.into(),
            at: None,
            details: Vec::new(),
            hint: None,
            source: None,
            others: Vec::new(),
            stopped: false,
        }))
    }

    /// The pipeline is wrong: a missing column, a wrong type, an impossible option. Found while planning.
    pub fn pipeline(message: impl Into<String>) -> Self {
        Self::new(Class::Pipeline, message)
    }

    /// A row or a file holds something that it must not.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(Class::Data, message)
    }

    /// The surroundings fail: a folder that is not there, a full disk, no permission.
    pub fn environment(message: impl Into<String>) -> Self {
        Self::new(Class::Environment, message)
    }

    /// A panic in user code, or an invariant of Mainstem's that did not hold.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Class::Bug, message)
    }

    /// The run was stopped by somebody, as this sentence says.
    pub(crate) fn stopped(by_whom: impl Into<String>) -> Self {
        let mut error = Self::environment("the run was stopped from outside")
            .with_detail(by_whom)
            .with_detail("Nothing was published.");
        error.edit().stopped = true;
        error
    }

    /// Several errors of one graph or schema, reported together.
    ///
    /// One error stays itself. None is a bug of the caller and is reported as one.
    pub fn all(errors: impl IntoIterator<Item = Error>) -> Self {
        let mut errors: Vec<Error> = errors
            .into_iter()
            .flat_map(|e| {
                if e.0.others.is_empty() {
                    vec![e]
                } else {
                    e.0.others.clone()
                }
            })
            .collect();
        match errors.len() {
            0 => Self::bug("an empty list of errors was reported"),
            1 => errors.remove(0),
            n => {
                let class = errors[0].0.class;
                let mut all = Self::new(class, format!("{n} errors"));
                all.edit().others = errors;
                all
            }
        }
    }

    fn edit(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }

    /// Adds a full sentence with more about what was found.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.edit().details.push(detail.into());
        self
    }

    /// Adds a full sentence that says what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.edit().hint = Some(hint.into());
        self
    }

    /// Keeps the error of a library as the cause.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.edit().source = Some(Arc::from(source.into()));
        self
    }

    /// Says before the message where in the data it happened.
    #[must_use]
    pub(crate) fn at_position(mut self, position: &RowPosition) -> Self {
        let inner = self.edit();
        inner.message = format!("{position}: {}", inner.message);
        self
    }

    /// Says in which node of the graph it happened; the innermost place named first is kept.
    ///
    /// The node stands in the message as a transform until the engine, which knows the graph, says what it is:
    /// a source, an analysis, a trainer, a step or a sink.
    #[must_use]
    pub fn at_node(mut self, node: impl fmt::Display) -> Self {
        if self.0.at.is_none() {
            let (noun, id) = ("transform", node.to_string());
            self.edit().at = Some(At { noun, id });
        }
        self
    }

    /// Says of each node that it names what that node is in this graph.
    #[must_use]
    pub(crate) fn in_graph(mut self, graph: &Graph) -> Self {
        let noun_of = |id: &str| {
            let node = graph.nodes.iter().find(|node| *node.id == *id);
            node.map(|node| node.stage.noun())
        };
        let inner = self.edit();
        if let Some(at) = &mut inner.at
            && let Some(noun) = noun_of(&at.id)
        {
            at.noun = noun;
        }
        let others = std::mem::take(&mut inner.others);
        inner.others = others.into_iter().map(|e| e.in_graph(graph)).collect();
        self
    }

    /// True if the pipeline has to change.
    pub fn is_pipeline(&self) -> bool {
        self.0.class == Class::Pipeline
    }

    /// True if the data have to change, or the pipeline has to expect them.
    pub fn is_data(&self) -> bool {
        self.0.class == Class::Data
    }

    /// True if the surroundings have to change: files, disks, libraries, permissions.
    pub fn is_environment(&self) -> bool {
        self.0.class == Class::Environment
    }

    /// True for a panic in user code or a broken invariant of Mainstem's.
    pub fn is_bug(&self) -> bool {
        self.0.class == Class::Bug
    }

    /// True if nothing failed: the run was stopped from outside, by a
    /// [`CancelToken`](crate::CancelToken) or by Ctrl-C.
    pub fn is_stopped(&self) -> bool {
        self.0.stopped
    }

    /// The errors that were reported together; an error on its own is its only element.
    pub fn errors(&self) -> &[Error] {
        if self.0.others.is_empty() {
            std::slice::from_ref(self)
        } else {
            &self.0.others
        }
    }

    /// The main line: lower case, no full stop, no place and no hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What was found besides, in full sentences.
    pub(crate) fn details(&self) -> &[String] {
        &self.0.details
    }

    /// This error and all its causes, one a line.
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        for error in self.errors() {
            let mut cause = std::error::Error::source(error);
            while let Some(inner) = cause {
                text.push_str(&format!("\n  caused by: {inner}"));
                cause = inner.source();
            }
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            message,
            at,
            details,
            hint,
            others,
            ..
        } = &*self.0;
        f.write_str(message)?;
        if let Some(At { noun, id }) = at {
            write!(f, "\n  in {noun} {id:?}")?;
        }
        for detail in details {
            write!(f, "\n  {detail}")?;
        }
        if let Some(hint) = hint {
            write!(f, "\n  Hint: {hint}")?;
        }
        for (i, other) in others.iter().enumerate() {
            let text = other.to_string().replace('\n', "\n   ");
            write!(f, "\n{}. {text}", i + 1)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|e| e as &(dyn std::error::Error + 'static))
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::data("an Arrow kernel refused the rows")
            .with_detail(error.to_string())
            .with_source(error)
    }
}

impl From<datafusion_common::DataFusionError> for Error {
    fn from(error: datafusion_common::DataFusionError) -> Self {
        let detail = error.strip_backtrace();
        Self::data("an expression failed on the rows")
            .with_detail(detail)
            .with_source(error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::environment("input or output failed")
            .with_detail(error.to_string())
            .with_source(error)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::data("JSON could not be read or written")
            .with_detail(error.to_string())
            .with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn message_place_detail_and_hint_stand_below_each_other() {
        let error = Error::pipeline("column \"age\" must hold floats, found Utf8")
            .at_node("features/age")
            .at_node("outer")
            .with_hint("Add a cast before it.");
        expect![[r#"
            column "age" must hold floats, found Utf8
              in transform "features/age"
              Hint: Add a cast before it."#]]
        .assert_eq(&error.to_string());
        assert!(error.is_pipeline() && !error.is_data());
    }

    #[test]
    fn several_errors_are_numbered_and_flattened() {
        let two = Error::all([Error::pipeline("a"), Error::pipeline("b").with_detail("B.")]);
        let three = Error::all([two, Error::data("c")]);
        expect![[r#"
            3 errors
            1. a
            2. b
                 B.
            3. c"#]]
        .assert_eq(&three.to_string());
        assert_eq!(three.errors().len(), 3);
    }

    #[test]
    fn the_report_prints_the_chain() {
        let io = std::io::Error::other("disk gone");
        expect![[r#"
            cannot write
              caused by: disk gone"#]]
        .assert_eq(&Error::environment("cannot write").with_source(io).report());
    }
}
