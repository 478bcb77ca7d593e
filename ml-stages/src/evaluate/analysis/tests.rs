//! Metrics against scikit-learn, slices, and the laws of merging.

use super::*;
use expect_test::expect;
use mainstem_engine::testing::table;
use proptest::prelude::*;

fn evaluate(spec: &Evaluate, rows: &RecordBatch) -> Result<Evaluation> {
    Analysis::check(spec, &rows.schema())?;
    let analyzer = spec.build(&Artifacts::none())?;
    let mut accumulator = analyzer.create();
    analyzer.add_rows(&mut accumulator, rows)?;
    let found = analyzer.finish_any(accumulator, 1)?;
    match found.downcast::<Evaluation>() {
        Ok(found) => Ok((*found).clone()),
        Err(_) => Err(Error::bug("not an evaluation")),
    }
}

fn refused(spec: &Evaluate, rows: &str) -> String {
    match evaluate(spec, &table(rows)) {
        Ok(found) => found.to_string(),
        Err(error) => error.to_string(),
    }
}

// scikit-learn 1.x, with y = [1,0,1,1,0,0,1,0] and each column of scores as s:
//   roc_auc_score(y, s), log_loss(y, clip(s, 1e-7, 1 - 1e-7)), accuracy_score(y, s > .5)
#[test]
fn classification_is_as_scikit_learn_has_it() {
    let rows = table(
        "y: true, false, true, true, false, false, true, false
         p: 0.9, 0.9, 0.5, 0.7, 0.5, 0.1, 0.1, 0.3
         q: 1.0, 0.0, 0.25, 0.75, 0.5, 0.0, 1.0, 0.25",
    );
    let spec = Evaluate::classification("y", "p").predictions(["p", "q"]);
    let found = evaluate(&spec, &rows).unwrap();
    let expected = [
        ("p", 0.59375, 0.8644419093984779, 0.625),
        ("q", 0.90625, 0.3318507608229272, 0.875),
    ];
    for (prediction, auc, log_loss, accuracy) in expected {
        let metrics = found.metrics("all", prediction).unwrap();
        assert_eq!(metrics.auc(), Some(auc));
        assert_eq!(metrics.accuracy(), Some(accuracy));
        let named = metrics.named();
        assert!((named[2].1.unwrap() - log_loss).abs() < 1e-7, "{named:?}");
    }
}

#[test]
fn slices_and_predictions_stand_in_a_table() {
    let rows = table(
        "y: 1.0, 2.0, 3.0, 4.0
         a: 1.0, 2.0, 3.0, 6.0
         b: 2.5, 2.5, 2.5, 2.5
         male: true, false, null, true",
    );
    let spec = Evaluate::regression("y", "a")
        .predictions(["a", "b"])
        .by(["male"]);
    let found = evaluate(&spec, &rows).unwrap();
    expect![[r#"
        | slice      | rows | prediction |   rmse |    mae | mean label | mean prediction |
        |------------|------|------------|--------|--------|------------|-----------------|
        | all        |    4 | a          | 1.0000 | 0.5000 |     2.5000 |          3.0000 |
        |            |      | b          | 1.1180 | 1.0000 |     2.5000 |          2.5000 |
        | male=null  |    1 | a          | 0.0000 | 0.0000 |     3.0000 |          3.0000 |
        |            |      | b          | 0.5000 | 0.5000 |     3.0000 |          2.5000 |
        | male=false |    1 | a          | 0.0000 | 0.0000 |     2.0000 |          2.0000 |
        |            |      | b          | 0.5000 | 0.5000 |     2.0000 |          2.5000 |
        | male=true  |    2 | a          | 1.4142 | 1.0000 |     2.5000 |          3.5000 |
        |            |      | b          | 1.5000 | 1.5000 |     2.5000 |          2.5000 |"#]]
    .assert_eq(&found.to_string());
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Evaluation>(&json).unwrap(), found);
}

#[test]
fn one_class_alone_has_no_auc() {
    let rows = table("y: 1, 1; p: 0.5, 0.75");
    let found = evaluate(&Evaluate::classification("y", "p"), &rows).unwrap();
    let metrics = found.metrics("all", "p").unwrap();
    assert_eq!((metrics.auc(), metrics.accuracy()), (None, Some(0.5)));
}

#[test]
fn what_is_refused() {
    let spec = Evaluate::classification("y", "p");
    expect![[r#"
        prediction "p" is null in a row to evaluate
          Hint: Filter such rows out before the evaluation."#]]
    .assert_eq(&refused(&spec, "y: 1, 0; p: 0.5, null"));
    expect![[r#"
        label "y" is 2 in a row to evaluate
          Hint: Filter such rows out before the evaluation."#]]
    .assert_eq(&refused(&spec, "y: 1, 2; p: 0.5, 0.5"));
    expect![[r#"
        2 errors
        1. label "y" must be numeric or Boolean, found Utf8
        2. column "p" is not there
             The columns are "y"."#]]
    .assert_eq(&refused(&spec, "y: a, b"));
    expect![[r#"
        there are no rows to evaluate the predictions of "y" on
          Hint: Look for a filter or a join before it that keeps no row."#]]
    .assert_eq(&refused(&spec, "y: ; p: "));
}

fn rows_of(values: &[(bool, u8, u8)]) -> RecordBatch {
    let labels: ArrayRef = Arc::new(
        values
            .iter()
            .map(|v| Some(f64::from(u8::from(v.0))))
            .collect::<Float64Array>(),
    );
    // Quarters add up without rounding, so that equal sums are equal bits.
    let scores: ArrayRef = Arc::new(
        values
            .iter()
            .map(|v| Some(f32::from(v.1 % 5) / 4.0))
            .collect::<Float32Array>(),
    );
    let slices: ArrayRef = Arc::new(
        values
            .iter()
            .map(|v| Some(f64::from(v.2 % 3)))
            .collect::<Float64Array>(),
    );
    RecordBatch::try_from_iter([("y", labels), ("p", scores), ("s", slices)]).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_split_gives_the_same_and_merging_is_associative(
        values in prop::collection::vec(any::<(bool, u8, u8)>(), 3..40),
        cut in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let rows = rows_of(&values);
        let mut cuts = [cut.0.index(values.len()), cut.1.index(values.len())];
        cuts.sort_unstable();
        let parts = [(0, cuts[0]), (cuts[0], cuts[1]), (cuts[1], values.len())];
        let spec = Evaluate::regression("y", "p").by(["s"]);
        let part = |i: usize| {
            let mut sums = spec.create_accumulator();
            let (from, to) = parts[i];
            spec.add(&mut sums, &rows.slice(from, to - from)).unwrap();
            spec.load(&spec.save(&sums).unwrap()).unwrap()
        };
        let merge = |mut a, b| { spec.merge(&mut a, b).unwrap(); a };
        let left = merge(merge(part(0), part(1)), part(2));
        let right = merge(part(0), merge(part(1), part(2)));
        prop_assert_eq!(&left, &right);
        prop_assert_eq!(&merge(spec.create_accumulator(), left.clone()), &left);
        let mut whole = spec.create_accumulator();
        spec.add(&mut whole, &rows).unwrap();
        prop_assert_eq!(&whole, &left);
        prop_assert_eq!(spec.finish(whole).unwrap(), spec.finish(left).unwrap());
    }

    #[test]
    fn the_area_is_the_share_of_pairs_in_order(
        values in prop::collection::vec(any::<(bool, u8, u8)>(), 1..30),
    ) {
        let spec = Evaluate::classification("y", "p");
        let found = evaluate(&spec, &rows_of(&values)).unwrap();
        let score = |v: &(bool, u8, u8)| v.1 % 5;
        let mut won = (0.0, 0.0);
        for one in values.iter().filter(|v| v.0) {
            for zero in values.iter().filter(|v| !v.0) {
                won.1 += 1.0;
                won.0 += match score(one).cmp(&score(zero)) {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.0,
                };
            }
        }
        let expected = (won.1 > 0.0).then_some(won.0 / won.1);
        prop_assert_eq!(found.metrics("all", "p").unwrap().auc(), expected);
    }
}
