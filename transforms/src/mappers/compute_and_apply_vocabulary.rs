//! Replaces words by their index in a vocabulary.

use ahash::AHashMap;

use crate::analyzers::{Vocabulary, Words};
use crate::mapper::prelude::*;
use crate::onnx_graph::Attribute;
use crate::text::map_words;

/// Maps each word to its index in the vocabulary of all rows, the most frequent word first.
///
/// A word that is not in the vocabulary becomes [`UNKNOWN`] (-1), or one of `num_oov_buckets` indexes
/// behind the vocabulary, by FarmHash `Fingerprint64`. Missing (the empty text too) stays missing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComputeAndApplyVocabulary {
    input: Feature,
    options: VocabularyOptions,
}

/// Which words a vocabulary holds, and what becomes of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VocabularyOptions {
    top_k: Option<usize>,
    frequency_threshold: u64,
    num_oov_buckets: usize,
}

impl VocabularyOptions {
    /// All words, and -1 for any other.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps only the `top_k` most frequent words.
    #[must_use]
    pub fn top_k(mut self, top_k: usize) -> Self {
        self.top_k = Some(top_k);
        self
    }

    /// Keeps only words that occur at least so often.
    #[must_use]
    pub fn frequency_threshold(mut self, frequency_threshold: u64) -> Self {
        self.frequency_threshold = frequency_threshold;
        self
    }

    /// Deals other words to so many indexes behind the vocabulary; ONNX can express at most 1.
    #[must_use]
    pub fn num_oov_buckets(mut self, num_oov_buckets: usize) -> Self {
        self.num_oov_buckets = num_oov_buckets;
        self
    }
}

impl Feature {
    /// The index of each word in the vocabulary of all rows. Missing stays missing.
    #[must_use]
    pub fn compute_and_apply_vocabulary(self, options: VocabularyOptions) -> Feature {
        Feature::mapped(ComputeAndApplyVocabulary {
            input: self,
            options,
        })
    }
}

impl ComputeAndApplyVocabulary {
    fn vocabulary(&self) -> Learn {
        let vocabulary = Vocabulary::new()
            .top_k(self.options.top_k)
            .frequency_threshold(self.options.frequency_threshold);
        Learn::new(&self.input, vocabulary)
    }
}

#[typetag::serde(name = "compute_and_apply_vocabulary")]
impl Mapper for ComputeAndApplyVocabulary {
    fn name(&self) -> &'static str {
        "compute_and_apply_vocabulary"
    }

    fn inputs(&self) -> Vec<&Feature> {
        vec![&self.input]
    }

    fn analyzers(&self) -> Vec<Learn> {
        vec![self.vocabulary()]
    }

    fn check(&self, inputs: &[Shape]) -> Result<Shape> {
        expect_shape(self.name(), Shape::Text, inputs[0])?;
        Ok(Shape::Index)
    }

    fn build(&self, learned: &Learned, _inputs: &[Kind]) -> Result<Box<dyn Kernel>> {
        let Words(words) = learned.get(&self.vocabulary())?;
        let indexes = (0..).zip(&words).map(|(i, w)| (Box::from(w.as_str()), i));
        Ok(Box::new(LookUp {
            indexes: indexes.collect(),
            words,
            n_oov: self.options.num_oov_buckets,
        }))
    }
}

struct LookUp {
    words: Vec<String>,
    indexes: AHashMap<Box<str>, i64>,
    n_oov: usize,
}

impl std::fmt::Debug for LookUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LookUp({} words)", self.words.len())
    }
}

impl LookUp {
    fn index(&self, word: Option<&str>) -> i64 {
        let Some(word) = word else {
            return MISSING;
        };
        match self.indexes.get(word) {
            Some(index) => *index,
            None if self.n_oov == 0 => UNKNOWN,
            None => {
                let bucket = farmhash::fingerprint64(word.as_bytes()) % self.n_oov as u64;
                (self.words.len() as u64 + bucket) as i64
            }
        }
    }
}

impl Kernel for LookUp {
    fn kind(&self) -> Kind {
        Kind::Index {
            depth: self.words.len() + self.n_oov,
            unknown: self.n_oov == 0,
        }
    }

    fn run(&self, inputs: &[&Values]) -> Result<Values> {
        let indexes = map_words(inputs[0].text()?, |word| self.index(word))?;
        Ok(Values::Indexes(indexes))
    }

    fn to_onnx(&self, inputs: &[Value], graph: &mut OnnxGraph) -> Result<Value> {
        if self.n_oov > 1 {
            return Err(Error::pipeline(format!(
                "ONNX cannot express {} out-of-vocabulary buckets, as it has no FarmHash",
                self.n_oov
            ))
            .with_hint("Use `.num_oov_buckets(1)`, or 0."));
        }
        let mut keys = vec![String::new()];
        keys.extend_from_slice(&self.words);
        let mut indexes = vec![MISSING];
        indexes.extend(0..self.words.len() as i64);
        let default = if self.n_oov == 0 {
            UNKNOWN
        } else {
            self.words.len() as i64
        };
        let attributes = vec![
            ("keys_strings", Attribute::Strings(keys)),
            ("values_int64s", Attribute::Ints(indexes)),
            ("default_int64", Attribute::Int(default)),
        ];
        Ok(graph.op_in("ai.onnx.ml", "LabelEncoder", inputs, attributes))
    }
}
