//! Training rows written as text, and models run without a back-end.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float32Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use mainstem_engine::testing::table;
use mainstem_engine::{
    ArtifactRef, Artifacts, Error, Result, Trainer, TrainingContext, TrainingRows,
};
use mainstem_transforms::onnx_graph::TensorValues;
use mainstem_transforms::{FEATURES_COLUMN, FeatureKind, FeatureLayout, features_type};

use crate::model::{FEATURES, SCORE, TrainedModel};
use crate::onnx::{Embedded, InferenceBackend, TensorValuesRef, TensorView, encode};

/// Rows in memory, with a layout as the artifact `layout`.
pub(crate) struct Fixture {
    layout: FeatureLayout,
    batches: Vec<RecordBatch>,
    threads: usize,
}

impl Fixture {
    /// Features from a table whose columns are numbers, or, named `name#depth`, indexes, or, named
    /// `name@depth`, indexes to be written as one-hot columns; beside them the columns of `others`.
    pub(crate) fn new(features: &str, others: &str) -> Self {
        let features = table(features);
        let n_rows = features.num_rows();
        let mut layout = Vec::new();
        let mut matrix = vec![Vec::new(); n_rows];
        for (field, column) in features.schema().fields().iter().zip(features.columns()) {
            let values = column.as_primitive::<Float64Type>().values();
            let (name, kind) = match field.name().split_once(['#', '@']) {
                None => (field.name().as_str(), FeatureKind::Number),
                Some((name, depth)) => {
                    let depth = depth.parse().unwrap();
                    let one_hot = field.name().contains('@');
                    (
                        name,
                        if one_hot {
                            FeatureKind::OneHot { depth }
                        } else {
                            FeatureKind::Index { depth }
                        },
                    )
                }
            };
            layout.push((name.to_owned(), kind));
            for (row, x) in matrix.iter_mut().zip(values) {
                match kind {
                    FeatureKind::OneHot { depth } => {
                        row.extend((0..depth).map(|i| f32::from(u8::from(i as f64 == *x))));
                    }
                    _ => row.push(*x as f32),
                }
            }
        }
        Self::of(FeatureLayout::new(layout), &matrix.concat(), table(others))
    }

    /// Features as a matrix of this layout, beside other columns.
    pub(crate) fn of(layout: FeatureLayout, matrix: &[f32], others: RecordBatch) -> Self {
        Self {
            batches: vec![with_features(&layout, matrix, &others)],
            layout,
            threads: 1,
        }
    }

    /// In batches of so many rows.
    pub(crate) fn in_batches(mut self, n_rows: usize) -> Self {
        let cut = |b: &RecordBatch| {
            let starts = (0..b.num_rows()).step_by(n_rows);
            let b = b.clone();
            starts.map(move |at| b.slice(at, n_rows.min(b.num_rows() - at)))
        };
        self.batches = self.batches.iter().flat_map(cut).collect();
        self
    }

    pub(crate) fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    pub(crate) fn layout(&self) -> ArtifactRef<FeatureLayout> {
        ArtifactRef::new("layout")
    }

    pub(crate) fn columns_layout(&self) -> &FeatureLayout {
        &self.layout
    }

    pub(crate) fn train(&self, trainer: &dyn Trainer) -> Result<Arc<TrainedModel>> {
        let mut artifacts = Artifacts::none();
        artifacts.insert("layout", Arc::new(self.layout.clone()));
        assert_eq!(trainer.needs().len(), 1);
        trainer.check(&self.schema())?;
        let model = trainer.train(&artifacts, self, self)?;
        let model = model
            .downcast::<TrainedModel>()
            .map_err(|_| Error::bug("not a model"))?;
        assert_eq!(model.layout, self.layout);
        assert!(
            model.losses.iter().all(|l| l.is_finite()),
            "{:?}",
            model.losses
        );
        Ok(model)
    }

    pub(crate) fn batches(&self) -> Vec<RecordBatch> {
        self.batches.clone()
    }

    /// The features of all rows, one row after the other.
    pub(crate) fn matrix(&self) -> Vec<f32> {
        let lists = |b: &RecordBatch| {
            let lists = b.column_by_name(FEATURES_COLUMN).unwrap().clone();
            let lists = lists.as_list::<i32>().iter().flatten().collect::<Vec<_>>();
            let values = |l: &ArrayRef| l.as_primitive::<Float32Type>().values().to_vec();
            lists.iter().flat_map(values).collect::<Vec<f32>>()
        };
        self.batches.iter().flat_map(lists).collect()
    }

    /// The scores that the model's graph gives for the rows, on the embedded back-end.
    pub(crate) fn predict(&self, model: &TrainedModel) -> Vec<f32> {
        self.predict_on(&Embedded::new(), model)
    }

    /// The scores that the model's graph gives for the rows on a back-end.
    pub(crate) fn predict_on(
        &self,
        backend: &dyn InferenceBackend,
        model: &TrainedModel,
    ) -> Vec<f32> {
        let bytes = encode(&model.graph, model.kind, &BTreeMap::new());
        let mut session = backend.load(&bytes).unwrap();
        let matrix = self.matrix();
        let view = TensorView::new(TensorValuesRef::Float(&matrix), self.layout.width()).unwrap();
        let [(name, scores)] = session
            .run(&[(FEATURES, view)])
            .unwrap()
            .try_into()
            .unwrap();
        assert_eq!((name.as_str(), scores.width), (SCORE, 1));
        scores.values
    }

    /// The message by which a trainer refuses the rows.
    pub(crate) fn refused(&self, trainer: &dyn Trainer) -> String {
        match self.train(trainer) {
            Ok(model) => format!("trained: {:?}", model.losses),
            Err(error) => error.to_string(),
        }
    }
}

fn with_features(layout: &FeatureLayout, matrix: &[f32], others: &RecordBatch) -> RecordBatch {
    let lengths = std::iter::repeat_n(layout.width(), others.num_rows());
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let lists = ListArray::new(
        item,
        OffsetBuffer::from_lengths(lengths),
        Arc::new(Float32Array::from(matrix.to_vec())),
        None,
    );
    let mut fields = others.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(
        FEATURES_COLUMN,
        features_type(),
        false,
    )));
    let mut columns = others.columns().to_vec();
    columns.push(Arc::new(lists));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

impl TrainingRows for Fixture {
    fn schema(&self) -> SchemaRef {
        self.batches[0].schema()
    }

    fn n_rows(&self) -> u64 {
        self.batches.iter().map(|b| b.num_rows() as u64).sum()
    }

    fn epoch(&self) -> Box<dyn Iterator<Item = Result<RecordBatch>> + Send + '_> {
        Box::new(self.batches.iter().cloned().map(Ok))
    }
}

impl TrainingContext for Fixture {
    fn n_threads(&self) -> usize {
        self.threads
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn progress(&self, done: u64, total: u64) {
        assert!(done <= total, "{done} of {total} rows");
    }
}

/// The model's constants of 32-bit floats, in the order they were made.
pub(crate) fn constants(model: &TrainedModel) -> Vec<Vec<f32>> {
    let floats = |t: &TensorValues| match t {
        TensorValues::Float(values) => Some(values.clone()),
        _ => None,
    };
    let constants = model.graph.constants().values();
    constants.filter_map(|t| floats(&t.values)).collect()
}
