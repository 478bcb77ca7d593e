//! Queries of DataFusion as sources, and a Predictor in SQL.

use mainstem::engine::datafusion::prelude::SessionContext;
use mainstem::engine::testing::{show, table};
use mainstem::prelude::*;

fn people() -> &'static str {
    "age: 20.0, 30.0, 40.0, 50.0; weight: 1.0, 2.0, 3.0, 4.0"
}

/// A Predictor of weight from age, learned from four rows.
fn predictor() -> Result<Predictor> {
    let pipeline = Pipeline::new("learn");
    let rows = pipeline.read(
        "people",
        connectors::from_record_batches(vec![table(people())]),
    );
    let fitted = rows.fit(&Preprocess::new().feature("age", feature(col("age"))));
    let trainer = mainstem::ml_stages::train::LinearRegression::new(&fitted, "weight");
    let model = rows.featurize(&fitted).train(trainer);
    let predictor = rows.assemble(&fitted, &model, Backend::Embedded);
    let report = pipeline.run(&RunOptions::new().workers(1))?;
    Ok((*report.artifact(&predictor)?).clone())
}

#[test]
fn a_predictor_scores_in_sql_as_it_does_in_a_pipeline() {
    let predictor = predictor().unwrap();
    let expected = predictor.predict_batch(&table(people())).unwrap();
    let frame = at_once(async move {
        let context = SessionContext::new();
        context.register_udf(predictor.function("predict").into_scalar());
        context.register_batch("people", table(people())).unwrap();
        context
            .sql("SELECT age, weight, predict(age) AS prediction FROM people ORDER BY age")
            .await
            .unwrap()
    });
    let pipeline = Pipeline::new("sql");
    let (sink, rows) = connectors::collect();
    pipeline
        .read("scored", connectors::datafusion(frame))
        .write(sink);
    pipeline.run(&RunOptions::new().workers(2)).unwrap();
    assert_eq!(show(&rows.take()[0]), show(&expected));
}

/// Planning such a query waits for nothing.
fn at_once<T>(work: impl Future<Output = T>) -> T {
    futures::executor::block_on(work)
}
