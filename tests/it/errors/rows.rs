//! Rows on which an expression or a function fails.

use arrow::array::{Date32Array, TimestampNanosecondArray};
use mainstem::engine::OnBadRow;
use mainstem::engine::expression::cast;
use mainstem::engine::expression::functions::regex;
use mainstem::engine::ops::SideInput;

use super::*;

#[test]
fn an_overflow_in_a_cast() {
    check(
        &[PEOPLE],
        |p, dir| people_of(p, dir).with_column("small", cast(col("age"), DataType::Int8)),
        Data,
        expect![[r#"
            file "DIR/people.csv", line 4: expression `CAST(age AS Int8)` failed on {"age":300}: Cast error: Can't cast value 300 to type Int8
              in transform "with_column"
              Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]],
    );
}

#[test]
fn a_division_by_zero() {
    check(
        &[PEOPLE],
        |p, dir| {
            let rows = people_of(p, dir).filter(col("name").not_eq(lit("Max")));
            rows.named("rates/per_year")
                .with_column("rate", lit(100) / col("age"))
        },
        Data,
        expect![[r#"
            file "DIR/people.csv", line 5: expression `Int32(100) / age` failed on {"age":0}: Divide by zero error
              in transform "rates/per_year"
              Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]],
    );
}

#[test]
fn a_pattern_that_is_none() {
    check(
        &[("patterns.csv", b"text,pattern\naa,a+\nbb,b(\n")],
        |p, dir| {
            let rows = p.read("patterns", connectors::csv(dir.join("patterns.csv")));
            rows.filter(regex::expr_fn::regexp_like(
                col("text"),
                col("pattern"),
                None,
            ))
        },
        Data,
        expect![[r#"
            file "DIR/patterns.csv", line 3: expression `regexp_like(text, pattern)` failed on {"text":"bb","pattern":"b("}: Compute error: Regular expression did not compile: Syntax( regex parse error: b( ^ error: unclosed group )
              in transform "filter"
              Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]],
    );
}

#[test]
fn a_row_that_a_function_cannot_take() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Person {
        name: String,
        age: u8,
    }
    check(
        &[PEOPLE],
        |p, dir| people_of(p, dir).map_rows(|person: Person| person),
        Data,
        expect![[r#"
            file "DIR/people.csv", line 4: {"name":"Max","age":300} is not a Person: integer conversion failed: out of range integral type conversion attempted
              in transform "map_rows"
              Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]],
    );
}

/// Moments in nanoseconds end in 2262: a day after that is none of them, whichever side looks the other up.
#[test]
fn a_key_beyond_the_type_of_a_look_up_is_found_nowhere_and_no_error() {
    let days: ArrayRef = Arc::new(Date32Array::from(vec![1, 2_932_896]));
    let days = RecordBatch::try_from_iter([("day", days)]).unwrap();
    let moments = TimestampNanosecondArray::from(vec![86_400_000_000_000, 0]);
    let moments: ArrayRef = Arc::new(moments);
    let moments = RecordBatch::try_from_iter([("moment", moments)]).unwrap();
    let look_up = |main: (&str, &RecordBatch), side: (&str, &RecordBatch)| {
        let pipeline = Pipeline::new("test");
        let read = |(name, rows): (&str, &RecordBatch)| {
            pipeline.read(name, connectors::from_record_batches(vec![rows.clone()]))
        };
        let (sink, found) = connectors::collect();
        let on = SideInput::map([(col(main.0), col(side.0))]);
        let side = read(side).with_column("found", lit(1));
        read(main)
            .with_side_input(&side, on.columns(["found"]))
            .write(sink);
        let options = RunOptions::new().workers(1).progress(Progress::Never);
        pipeline.run(&options).unwrap();
        mainstem::engine::testing::show(&found.take()[0])
    };
    let (days, moments) = (("day", &days), ("moment", &moments));
    expect![[r#"
        day: 1970-01-02, 9999-12-31
        found: 1, null"#]]
    .assert_eq(&look_up(days, moments));
    expect![[r#"
        moment: 1970-01-02T00:00:00, 1970-01-01T00:00:00
        found: 1, null"#]]
    .assert_eq(&look_up(moments, days));
}

/// Under the other policies the rest of the rows goes on, and the letters say where the bad ones stood.
#[test]
fn only_the_rows_that_fail_are_rejected() {
    let mut all = Vec::new();
    for workers in [1, 3] {
        let folder = tempfile::tempdir().unwrap();
        let lines: String = (0..20_000).map(|n| format!("{n}\n")).collect();
        fs::write(folder.path().join("n.csv"), format!("n\n{lines}")).unwrap();
        let pipeline = Pipeline::new("test");
        let (bad, letters) = connectors::collect();
        let (sink, good) = connectors::collect();
        pipeline
            .read("numbers", connectors::csv(folder.path().join("n.csv")))
            .filter(col("n").not_eq(lit(4)))
            .select([
                (lit(1000) / (col("n") % lit(9973) - lit(5))).alias("q"),
                col("n"),
            ])
            .dead_letters_to(bad)
            .filter(lit(7).gt(lit(1) / (col("n") - lit(12_345))))
            .on_bad_row(OnBadRow::Drop)
            .write(sink);
        let options = RunOptions::new().workers(workers).progress(Progress::Never);
        let report = pipeline.run(&options).unwrap();
        let n_good: usize = good.take().iter().map(RecordBatch::num_rows).sum();
        assert_eq!(n_good, 20_000 - 1 - 3 - 1);
        assert_eq!(report.node("filter-2").unwrap().rejected, 1);
        let letters = letters.take();
        let letters = arrow::compute::concat_batches(&letters[0].schema(), &letters).unwrap();
        let shown = mainstem::engine::testing::show(&letters);
        let shown = shown.replace(&*folder.path().to_string_lossy(), "DIR");
        all.push(shown);
    }
    expect![[r#"
        node: 'select', 'select', 'select'
        split: 'file "DIR/n.csv"', 'file "DIR/n.csv"', 'file "DIR/n.csv"'
        row: 7, 9980, 19953
        reason: 'expression `Int32(1000) / (n % Int32(9973) - Int32(5)) AS q` failed on {"n":5}: Divide by zero error', 'expression `Int32(1000) / (n % Int32(9973) - Int32(5)) AS q` failed on {"n":9978}: Divide by zero error', 'expression `Int32(1000) / (n % Int32(9973) - Int32(5)) AS q` failed on {"n":19951}: Divide by zero error'
        data: '{"n":5}', '{"n":9978}', '{"n":19951}'"#]].assert_eq(&all[0]);
    assert_eq!(all[1], all[0], "with 3 workers");
}
