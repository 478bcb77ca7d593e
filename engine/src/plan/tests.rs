//! Plans of small graphs.

use std::sync::Arc;

use crate::expression::{col, lit};
use arrow::datatypes::SchemaRef;
use expect_test::expect;
use serde_json::Value;

use crate::testing::table;
use crate::{
    Analysis, ArtifactRef, Artifacts, Description, Error, OnBadRow, Pipeline, Position,
    Publication, Result, Sink, Source, Split, SplitReader,
};

#[derive(Debug)]
struct People;

impl Source for People {
    fn describe(&self) -> Description {
        Description::new("people", serde_json::json!({ "path": "people.csv" }))
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(table("age: 1; name: a; city: b").schema())
    }

    fn splits(&self) -> Result<Vec<Split>> {
        Ok(Vec::new())
    }

    fn open(&self, _: &Split, _: Position, _: Option<&[String]>) -> Result<Box<dyn SplitReader>> {
        Err(Error::bug("there are no splits"))
    }
}

#[derive(Debug)]
struct Learn(&'static str);

impl Analysis for Learn {
    fn describe(&self) -> Description {
        Description::new("learn", Value::Null)
    }

    fn check(&self, input: &SchemaRef) -> Result<()> {
        crate::expression::check_column(self.0, input).map(|_| ())
    }

    fn reads(&self) -> Option<Vec<String>> {
        Some(vec![self.0.into()])
    }

    fn build(&self, _: &Artifacts) -> Result<Arc<dyn crate::analyzer::DynAnalyzer>> {
        Err(Error::bug("never run"))
    }
}

#[derive(Debug)]
struct Nowhere;

impl Sink for Nowhere {
    fn describe(&self) -> Description {
        Description::new("nowhere", Value::Null)
    }

    fn accepts(&self, _: &SchemaRef) -> Result<()> {
        Ok(())
    }

    fn begin(&self, _: &SchemaRef) -> Result<Box<dyn Publication>> {
        Err(Error::bug("never run"))
    }
}

#[derive(Debug)]
struct Use(ArtifactRef<i64>);

impl crate::Transform for Use {
    fn describe(&self) -> Description {
        Description::new("use", Value::Null)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(SchemaRef::clone(&inputs[0]))
    }

    fn needs(&self) -> Vec<crate::ArtifactId> {
        vec![self.0.id().clone()]
    }

    fn build(&self, _: &Artifacts) -> Result<Box<dyn crate::Operator>> {
        Err(Error::bug("never run"))
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        wanted.map(<[String]>::to_vec)
    }
}

fn learning() -> Pipeline {
    let pipeline = Pipeline::new("ages");
    let adults = pipeline
        .read("people", People)
        .named("adults")
        .filter(col("age").gt(lit(17)));
    let ages = adults.named("ages").analyze::<i64>(Learn("age"));
    adults
        .named("use")
        .apply(Use(ages))
        .select([col("name")])
        .write(Nowhere);
    pipeline
}

#[test]
fn explain_shows_phases_scans_and_fusion() {
    expect![[r#"
        pipeline "ages": 2 phases

        phase 1 of 2
          scan      people [people path=people.csv], columns 1 of 3: age
          transform adults [filter predicate=age > Int32(17)] <- people
          learn     ages [learn] <- adults

        phase 2 of 2
          scan      people [people path=people.csv], columns 2 of 3: age, name
          transform adults [filter predicate=age > Int32(17)] <- people
          transform use [use] using ages <- adults
          transform select [select columns=["name"]] <- use
          write     nowhere [nowhere] <- select
    "#]]
    .assert_eq(&learning().plan().unwrap().explain());
}

#[test]
fn the_drawing_has_a_group_per_phase_and_the_artifact_edge() {
    expect![[r#"
        flowchart LR
          subgraph phase1[phase 1]
            p1n0[("people<br/><i>people</i>")]
            p1n1["adults<br/><i>filter</i>"]
            p1n2(["ages<br/><i>learn</i>"])
          end
          p1n0 --> p1n1
          p1n1 --> p1n2
          subgraph phase2[phase 2]
            p2n0[("people<br/><i>people</i>")]
            p2n1["adults<br/><i>filter</i>"]
            p2n3["use<br/><i>use</i>"]
            p2n4["select<br/><i>select</i>"]
            p2n5[["nowhere<br/><i>nowhere</i>"]]
          end
          p2n0 --> p2n1
          p2n1 --> p2n3
          p2n3 --> p2n4
          p2n4 --> p2n5
          p1n2 == artifact ==> p2n3
    "#]]
    .assert_eq(&learning().plan().unwrap().explain_mermaid());
}

#[test]
fn row_wise_neighbours_are_fused_up_to_a_fork() {
    let pipeline = Pipeline::new("chain");
    let rows = pipeline.read("people", People);
    let b = rows
        .named("a")
        .filter(col("age").gt(lit(1)))
        .named("b")
        .with_column("x", lit(1));
    b.named("c")
        .filter(col("x").gt(lit(0)))
        .named("d")
        .select([col("x")])
        .write(Nowhere);
    b.named("e")
        .filter(col("x").lt(lit(0)))
        .named("out")
        .write(Nowhere);
    let plan = pipeline.plan().unwrap();
    let name = |i: &usize| plan.graph.nodes[*i].id.to_string();
    let chains: Vec<Vec<String>> = plan.phases[0]
        .chains
        .iter()
        .map(|c| c.members.iter().map(name).collect())
        .collect();
    assert_eq!(chains, [vec!["a", "b"], vec!["c", "d"], vec!["e"]]);
}

#[test]
fn the_graph_is_data() {
    let json = learning().graph().to_json();
    assert_eq!(json["nodes"][3]["artifacts"], serde_json::json!(["ages"]));
    assert_eq!(json["nodes"][1]["config"]["predicate"], "age > Int32(17)");
    assert_eq!(json["nodes"][1]["inputs"][0]["from"], "people");
    assert_eq!(json["nodes"][1]["portable"], true);
}

#[test]
fn a_closure_cannot_travel() {
    let pipeline = learning();
    assert_eq!(
        pipeline.graph().to_portable_json().unwrap(),
        pipeline.graph().to_json()
    );
    pipeline
        .read("more", People)
        .named("secret")
        .map_batches(Ok)
        .write(Nowhere);
    expect![[r#"
        a closure cannot leave this process
          in transform "secret"
          Hint: Say it with expressions, or run the pipeline here."#]]
    .assert_eq(&pipeline.graph().to_portable_json().unwrap_err().to_string());
}

#[test]
fn all_mistakes_are_reported_together_with_their_nodes() {
    let pipeline = Pipeline::new("wrong");
    let other = Pipeline::new("other").read("people", People);
    let people = pipeline.read("people", People);
    let _ = people
        .named("first")
        .filter(col("Age").gt(lit(1)))
        .named("unreached")
        .select([col("z")]);
    let _ = people.named("twice").filter(col("age").gt(lit(1)));
    let _ = people
        .named("twice")
        .filter(col("age"))
        .on_bad_row(OnBadRow::DeadLetter);
    let _ = people
        .named("use")
        .apply(Use(ArtifactRef::new("elsewhere")));
    let _ = people.named("both").union(&[other]);
    expect![[r#"
        7 errors
        1. union brings collections of two pipelines together
             Hint: Read both sources in one pipeline.
        2. 2 nodes are named "twice"
             Hint: Give each a name of its own with `named`.
        3. pipeline "wrong" has no sink and learns nothing
             Hint: End a collection with `write`, `analyze` or `train`.
        4. dead letters go nowhere
             in transform "twice"
             Hint: Write `dead_letters()` to a sink, or choose `OnBadRow::Drop`.
        5. column "Age" is not there
             in transform "first"
             The columns are "age", "name", "city".
             Hint: Names are case-sensitive: did you mean "age"?
        6. a predicate must be Boolean, `age` is Int64
             in transform "twice"
             Hint: Compare it with something, such as `.gt(lit(0))`.
        7. artifact "elsewhere" is learned by no earlier node of this pipeline
             in transform "use"
             Hint: References belong to the pipeline that gave them; bring a value from elsewhere with `Pipeline::provide`."#]]
    .assert_eq(&pipeline.plan().unwrap_err().to_string());
}

/// Thirty nodes: a source per region, cleaned alike, brought together, learned from and written.
fn thirty_nodes() -> Pipeline {
    let pipeline = Pipeline::new("regions");
    let regions = ["north", "east", "south", "west", "islands", "abroad", "sea"].map(|region| {
        pipeline
            .read(&format!("{region}/people"), People)
            .named(format!("{region}/grown_up"))
            .filter(col("age").gt(lit(17)))
            .named(format!("{region}/labelled"))
            .with_column("region", lit(region))
    });
    let all = regions[0].named("all").union(&regions[1..]);
    let known = all.named("known").filter(
        ["age", "name", "city", "region"]
            .map(|c| col(c).is_not_null())
            .into_iter()
            .reduce(crate::Expr::and)
            .unwrap(),
    );
    let ages = known.named("ages").analyze::<i64>(Learn("age"));
    let used = known.named("use").apply(Use(ages));
    let parts = used
        .named("parts")
        .split_by_hash(col("name"), [("train", 4), ("eval", 1)]);
    parts[0].named("train").write(Nowhere);
    parts[1]
        .named("eval")
        .select([col("age"), col("city")])
        .named("eval/out")
        .write(Nowhere);
    used.named("divided")
        .with_column("q", lit(8) / col("age"))
        .on_bad_row(OnBadRow::Drop)
        .named("all/out")
        .write(Nowhere);
    pipeline
}

#[test]
fn a_plan_of_thirty_nodes_can_be_read() {
    let plan = thirty_nodes().plan().unwrap();
    assert_eq!(plan.graph.nodes.len(), 31);
    let text = plan.explain();
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(110), "{widest:?}");
    expect![[r#"
        pipeline "regions": 2 phases

        phase 1 of 2
          scan      north/people [people path=people.csv], columns 3 of 3: age, name, city
          transform north/grown_up [filter predicate=age > Int32(17)] <- north/people
          transform north/labelled [with_column] <- north/grown_up
                      name=region, value=Utf8("north"), fused with north/grown_up
          scan      east/people [people path=people.csv], columns 3 of 3: age, name, city
          transform east/grown_up [filter predicate=age > Int32(17)] <- east/people
          transform east/labelled [with_column] <- east/grown_up
                      name=region, value=Utf8("east"), fused with east/grown_up
          scan      south/people [people path=people.csv], columns 3 of 3: age, name, city
          transform south/grown_up [filter predicate=age > Int32(17)] <- south/people
          transform south/labelled [with_column] <- south/grown_up
                      name=region, value=Utf8("south"), fused with south/grown_up
          scan      west/people [people path=people.csv], columns 3 of 3: age, name, city
          transform west/grown_up [filter predicate=age > Int32(17)] <- west/people
          transform west/labelled [with_column] <- west/grown_up
                      name=region, value=Utf8("west"), fused with west/grown_up
          scan      islands/people [people path=people.csv], columns 3 of 3: age, name, city
          transform islands/grown_up [filter predicate=age > Int32(17)] <- islands/people
          transform islands/labelled [with_column] <- islands/grown_up
                      name=region, value=Utf8("islands"), fused with islands/grown_up
          scan      abroad/people [people path=people.csv], columns 3 of 3: age, name, city
          transform abroad/grown_up [filter predicate=age > Int32(17)] <- abroad/people
          transform abroad/labelled [with_column] <- abroad/grown_up
                      name=region, value=Utf8("abroad"), fused with abroad/grown_up
          scan      sea/people [people path=people.csv], columns 3 of 3: age, name, city
          transform sea/grown_up [filter predicate=age > Int32(17)] <- sea/people
          transform sea/labelled [with_column] <- sea/grown_up
                      name=region, value=Utf8("sea"), fused with sea/grown_up
          transform all [union]
                      <- north/labelled, east/labelled, south/labelled, west/labelled, islands/labelled,
                        abroad/labelled, sea/labelled
          transform known [filter] <- all
                      predicate=age IS NOT NULL AND name IS NOT NULL AND city IS NOT NULL A…
          learn     ages [learn] <- known

        phase 2 of 2
          scan      north/people [people path=people.csv]
          transform north/grown_up [filter predicate=age > Int32(17)] <- north/people
          transform north/labelled [with_column] <- north/grown_up
                      name=region, value=Utf8("north"), fused with north/grown_up
          scan      east/people [people path=people.csv]
          transform east/grown_up [filter predicate=age > Int32(17)] <- east/people
          transform east/labelled [with_column] <- east/grown_up
                      name=region, value=Utf8("east"), fused with east/grown_up
          scan      south/people [people path=people.csv]
          transform south/grown_up [filter predicate=age > Int32(17)] <- south/people
          transform south/labelled [with_column] <- south/grown_up
                      name=region, value=Utf8("south"), fused with south/grown_up
          scan      west/people [people path=people.csv]
          transform west/grown_up [filter predicate=age > Int32(17)] <- west/people
          transform west/labelled [with_column] <- west/grown_up
                      name=region, value=Utf8("west"), fused with west/grown_up
          scan      islands/people [people path=people.csv]
          transform islands/grown_up [filter predicate=age > Int32(17)] <- islands/people
          transform islands/labelled [with_column] <- islands/grown_up
                      name=region, value=Utf8("islands"), fused with islands/grown_up
          scan      abroad/people [people path=people.csv]
          transform abroad/grown_up [filter predicate=age > Int32(17)] <- abroad/people
          transform abroad/labelled [with_column] <- abroad/grown_up
                      name=region, value=Utf8("abroad"), fused with abroad/grown_up
          scan      sea/people [people path=people.csv]
          transform sea/grown_up [filter predicate=age > Int32(17)] <- sea/people
          transform sea/labelled [with_column] <- sea/grown_up
                      name=region, value=Utf8("sea"), fused with sea/grown_up
          transform all [union]
                      <- north/labelled, east/labelled, south/labelled, west/labelled, islands/labelled,
                        abroad/labelled, sea/labelled
          transform known [filter] <- all
                      predicate=age IS NOT NULL AND name IS NOT NULL AND city IS NOT NULL A…
          transform use [use] using ages <- known
          transform parts [split_by_hash key=name parts=[["train",4],["eval",1]]] <- use
          write     train [nowhere] <- parts:train
          transform eval [select columns=["age","city"]] <- parts:eval
          write     eval/out [nowhere] <- eval
          transform divided [with_column name=q value=Int32(8) / age] <- use, bad rows are dropped
          write     all/out [nowhere] <- divided
    "#]].assert_eq(&text);
}

/// People whose rows never end.
#[derive(Debug)]
struct Arrivals;

impl Source for Arrivals {
    fn describe(&self) -> Description {
        Description::new("arrivals", Value::Null)
    }

    fn schema(&self) -> Result<SchemaRef> {
        People.schema()
    }

    fn splits(&self) -> Result<Vec<Split>> {
        Ok(Vec::new())
    }

    fn open(&self, _: &Split, _: Position, _: Option<&[String]>) -> Result<Box<dyn SplitReader>> {
        Err(Error::bug("there are no splits"))
    }

    fn properties(&self) -> crate::SourceProperties {
        crate::SourceProperties {
            bounded: false,
            ..crate::SourceProperties::default()
        }
    }
}

/// A sink that shows nothing before the end.
#[derive(Debug)]
struct AtEnd;

impl Sink for AtEnd {
    fn describe(&self) -> Description {
        Description::new("at_end", Value::Null)
    }

    fn accepts(&self, _: &SchemaRef) -> Result<()> {
        Ok(())
    }

    fn publishes_at_end(&self) -> bool {
        true
    }

    fn begin(&self, _: &SchemaRef) -> Result<Box<dyn Publication>> {
        Err(Error::bug("never run"))
    }
}

/// Pairs of what `compose` makes of arrivals that never end, with why it is refused.
fn refused(
    compose: impl Fn(&crate::Collection, &crate::Collection),
    expected: expect_test::Expect,
) {
    let pipeline = Pipeline::new("endless");
    let arrivals = pipeline.read("arrivals", Arrivals);
    let people = pipeline.read("people", People);
    compose(&arrivals, &people);
    arrivals.named("seen").write(Nowhere);
    expected.assert_eq(&match pipeline.plan() {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    });
}

#[test]
fn what_waits_for_an_end_that_never_comes_is_refused() {
    use crate::aggregates::max;
    use crate::ops::{Join, JoinKind, Side, SideInput};
    refused(
        |arrivals, _| {
            arrivals
                .group_by([col("city")])
                .agg([max(col("age"))])
                .write(Nowhere)
        },
        expect![[r#"
            group_by gives nothing before its input ends, but source "arrivals" never ends
              in transform "group_by"
              Hint: Divide the rows by `window` before it, or give the global window a trigger, such as `Trigger::after_count(1000).repeatedly()`."#]],
    );
    refused(
        |arrivals, _| {
            arrivals
                .named("oldest")
                .top_k(3, [col("age").sort(false, false)])
                .write(Nowhere)
        },
        expect![[r#"
            top_k gives nothing before its input ends, but source "arrivals" never ends
              in transform "oldest"
              Hint: Divide the rows by `window` before it, or give the global window a trigger, such as `Trigger::after_count(1000).repeatedly()`."#]],
    );
    refused(
        |arrivals, _| arrivals.describe().write(Nowhere),
        expect![[r#"
        describe gives nothing before its input ends, but source "arrivals" never ends
          in transform "describe"
          Hint: It knows no windows: take it of a collection that ends, or use aggregates in windows instead."#]],
    );
    refused(
        |arrivals, _| {
            let _ = arrivals.analyze::<i64>(Learn("age"));
        },
        expect![[r#"
            "learn" learns from all rows, but source "arrivals" never ends
              in analysis "learn"
              Hint: Learn from a bounded collection, and bring the artifact in with `Pipeline::provide`."#]],
    );
    refused(
        |arrivals, _| arrivals.write(AtEnd),
        expect![[r#"
        at_end publishes nothing before its input ends, but source "arrivals" never ends
          in sink "at_end"
          Hint: Write to a sink that shows rows as they come, such as that of `connectors::into_stream`."#]],
    );
    let on = || [(col("name"), col("name"))];
    let join = |kind| Join::new(kind, on()).suffix("_2");
    refused(
        |arrivals, _| {
            arrivals
                .join_with(
                    &arrivals.filter(col("age").gt(lit(1))),
                    join(JoinKind::Inner),
                )
                .write(Nowhere)
        },
        expect![[r#"
            a join holds its left side whole, and that never ends
              in transform "join"
              Hint: Join windows of both with `join_windowed`, or rows whose times are near to each other with `join_interval`."#]],
    );
    refused(
        |arrivals, people| {
            arrivals
                .join_with(people, join(JoinKind::Inner).build_side(Side::Left))
                .write(Nowhere)
        },
        expect![[r#"
            a join holds its left side whole, and that never ends
              in transform "join"
              Hint: Hold the other side with `Join::build_side`."#]],
    );
    refused(
        |arrivals, people| {
            arrivals
                .join_with(people, join(JoinKind::Full))
                .write(Nowhere)
        },
        expect![[r#"
            a full join knows which right rows match none when its left side has ended, which it never does
              in transform "join"
              Hint: Leave such rows out, or join with `join_windowed` or `join_interval`."#]],
    );
    refused(
        |arrivals, people| {
            people
                .with_side_input(arrivals, SideInput::list("ages", col("age")))
                .write(Nowhere)
        },
        expect![[r#"
            rows wait for the end of side input "arrivals", which never ends
              in transform "side_input"
              Hint: Divide the side by `window`, or see the version valid at the time of a row with `SideInput::as_of_event_time`."#]],
    );
}

#[test]
fn rows_that_never_end_go_past_what_has_ended() {
    use crate::ops::{JoinKind, SideInput};
    let on = || [(col("name"), col("name"))];
    refused(
        |arrivals, people| {
            let people = people.select([col("name"), col("city").alias("home")]);
            arrivals.join(&people, JoinKind::Left, on()).write(Nowhere);
            people.join(arrivals, JoinKind::Inner, on()).write(Nowhere);
            arrivals
                .with_side_input(&people, SideInput::map(on()))
                .write(Nowhere);
            arrivals.distinct().write(Nowhere);
        },
        expect!["accepted"],
    );
}

#[test]
fn windows_that_would_be_ignored_are_refused() {
    use crate::ops::JoinKind;
    use crate::windowing::{Trigger, Windowing};
    let pipeline = Pipeline::new("windows");
    let people = pipeline.read("people", People);
    let windowing = Windowing::global().trigger(Trigger::after_count(10).repeatedly());
    let divided = people.window(windowing);
    divided.describe().write(Nowhere);
    divided
        .join(
            &people.select([col("name")]),
            JoinKind::Inner,
            [(col("name"), col("name"))],
        )
        .write(Nowhere);
    let _ = divided.analyze::<i64>(Learn("age"));
    divided.union(std::slice::from_ref(&people)).write(Nowhere);
    // Row by row, windows do not matter; put aside, they do not either.
    divided.filter(col("age").gt(lit(1))).write(Nowhere);
    divided
        .window(Windowing::global())
        .named("all")
        .distinct()
        .write(Nowhere);
    divided.union(std::slice::from_ref(&divided)).write(Nowhere);
    expect![[r#"
        4 errors
        1. describe takes all rows together, but windows divide them
             in transform "describe"
             The rows are divided into one global window, fires again and again after 10 rows.
             Hint: Put `.window(Windowing::global())` before it if that is what you want, where the windows of results stay in their columns; or use what works in windows: aggregates, `distinct`, `top_k`, or `join_windowed`.
        2. join takes all rows together, but windows divide them
             in transform "join"
             The rows are divided into one global window, fires again and again after 10 rows.
             Hint: Put `.window(Windowing::global())` before it if that is what you want, where the windows of results stay in their columns; or use what works in windows: aggregates, `distinct`, `top_k`, or `join_windowed`.
        3. learn learns from all rows together, but windows divide them
             in analysis "learn"
             The rows are divided into one global window, fires again and again after 10 rows.
             Hint: Put `.window(Windowing::global())` before it if that is what you want, where the windows of results stay in their columns; or use what works in windows: aggregates, `distinct`, `top_k`, or `join_windowed`.
        4. union brings rows together that are divided by event time in different ways
             in transform "union"
             The rows of "people" are divided into one global window, fires again and again after 10 rows.
             The rows of "people" are divided into one global window.
             Hint: Put `window` behind it, or the same before each input."#]].assert_eq(&pipeline.plan().unwrap_err().to_string());
}

#[test]
fn two_sinks_at_one_place_are_refused_by_their_names() {
    use crate::connectors::{collect, csv_sink, json_lines_sink, parquet_sink};
    let folder = tempfile::tempdir().unwrap();
    let folder = std::fs::canonicalize(folder.path()).unwrap();
    let refused = |compose: &dyn Fn(&crate::Collection)| {
        let pipeline = Pipeline::new("twice");
        compose(&pipeline.read("people", People));
        match pipeline.plan() {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error
                .to_string()
                .replace(&folder.display().to_string(), "FOLDER"),
        }
    };
    let here = |name: &str| folder.join(name);
    let twice = |rows: &crate::Collection| {
        rows.named("all").write(parquet_sink(here("out")));
        rows.named("again")
            .write(parquet_sink(here("x/../out/")).overwrite(true));
        rows.named("other").write(csv_sink(here("other")));
    };
    expect![[r#"
        2 sinks write to "FOLDER/out"
          They are "all", "again".
          Hint: Give each a place of its own, or write the `union` of the rows."#]]
    .assert_eq(&refused(&twice));
    // A link stands for what it points to.
    std::fs::create_dir(here("old")).unwrap();
    std::os::unix::fs::symlink(here("old"), here("link")).unwrap();
    let linked = |rows: &crate::Collection| {
        rows.named("old").write(csv_sink(here("old/rows.csv")));
        rows.named("link")
            .write(json_lines_sink(here("link/rows.csv")));
        rows.named("file").write(json_lines_sink(format!(
            "file://{}",
            here("old/./rows.csv").display()
        )));
    };
    expect![[r#"
        3 sinks write to "FOLDER/old/rows.csv"
          They are "old", "link", "file".
          Hint: Give each a place of its own, or write the `union` of the rows."#]]
    .assert_eq(&refused(&linked));
    let stored = |rows: &crate::Collection| {
        rows.named("one").write(parquet_sink("memory://twice/out"));
        rows.named("two").write(parquet_sink("memory://twice/out/"));
        rows.named("three")
            .write(parquet_sink("memory://twice/other"));
    };
    expect![[r#"
        2 sinks write to "memory://twice/out"
          They are "one", "two".
          Hint: Give each a place of its own, or write the `union` of the rows."#]]
    .assert_eq(&refused(&stored));
    let apart = |rows: &crate::Collection| {
        rows.named("one").write(parquet_sink(here("one")));
        rows.named("two").write(parquet_sink(here("two")));
        rows.named("three").write(collect().0);
        rows.named("four").write(collect().0);
        rows.named("five").write(Nowhere);
        rows.named("six").write(Nowhere);
    };
    assert_eq!(refused(&apart), "accepted");
}

#[test]
fn a_sink_in_the_place_of_another_or_of_a_source_is_refused_by_both_names() {
    use crate::connectors::{csv, csv_sink, json_lines_sink, parquet, parquet_sink};
    let folder = tempfile::tempdir().unwrap();
    let folder = std::fs::canonicalize(folder.path()).unwrap();
    let here = |name: &str| folder.join(name);
    std::fs::create_dir(here("in")).unwrap();
    std::fs::write(here("in/a.csv"), "x\n1\n").unwrap();
    let refused = |pipeline: &Pipeline| match pipeline.plan() {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error
            .to_string()
            .replace(&folder.display().to_string(), "FOLDER"),
    };
    let sinks = |places: &[(&'static str, String)]| {
        let pipeline = Pipeline::new("nested");
        let rows = pipeline.read("people", People);
        for (name, place) in places {
            rows.named(*name).write(parquet_sink(place));
        }
        refused(&pipeline)
    };
    let local = |name: &str| here(name).display().to_string();
    expect![[r#"
        2 errors
        1. sink "dots" writes into the place of sink "all"
             "FOLDER/out/bad" lies in "FOLDER/out".
             Hint: Give each a place of its own, beside that of the other.
        2. sink "deep" writes into the place of sink "all"
             "FOLDER/out/x/y" lies in "FOLDER/out".
             Hint: Give each a place of its own, beside that of the other."#]]
    .assert_eq(&sinks(&[
        ("deep", local("out/x/y")),
        ("all", local("out")),
        ("dots", local("z/../out/bad")),
    ]));
    expect![[r#"
        sink "bad" writes into the place of sink "all"
          "memory://nested/out/bad" lies in "memory://nested/out".
          Hint: Give each a place of its own, beside that of the other."#]]
    .assert_eq(&sinks(&[
        ("all", "memory://nested/out".into()),
        ("bad", "memory://nested/out/bad/".into()),
    ]));
    // A name that begins alike is another one, and so is the same one elsewhere.
    let apart = [
        ("all", local("out")),
        ("more", local("out2")),
        ("there", "memory://nested/out".into()),
    ];
    assert_eq!(sinks(&apart), "accepted");

    let rewritten = |read: &str, write: &dyn Fn(&crate::Collection)| {
        let pipeline = Pipeline::new("rewritten");
        write(&pipeline.read("rows", csv(here(read))));
        refused(&pipeline)
    };
    let over = |place: &'static str| {
        let place = here(place);
        move |rows: &crate::Collection| {
            rows.named("copy").write(csv_sink(&place).overwrite(true));
        }
    };
    expect![[r#"
        sink "copy" writes over what source "rows" reads
          The sink writes to "FOLDER/in", the source reads "FOLDER/in".
          Hint: Write to another place; what was read can be removed after the run."#]]
    .assert_eq(&rewritten("in", &over("in")));
    expect![[r#"
        sink "copy" writes over what source "rows" reads
          The sink writes to "FOLDER/in", the source reads "FOLDER/in".
          Hint: Write to another place; what was read can be removed after the run."#]]
    .assert_eq(&rewritten("in/*.csv", &over("in/")));
    expect![[r#"
        sink "copy" writes over what source "rows" reads
          The sink writes to "FOLDER/in/a.csv", the source reads "FOLDER/in/a.csv".
          Hint: Write to another place; what was read can be removed after the run."#]]
    .assert_eq(&rewritten("in/a.csv", &over("in/a.csv")));
    // Beside the files of a folder, in it, and at a name that begins alike.
    for place in ["out", "in/out", "in/b.csv", "in2"] {
        assert_eq!(rewritten("in", &over(place)), "accepted", "{place}");
    }
    // What is wrong with a source does not hide what is wrong with the places.
    let pipeline = Pipeline::new("stored");
    let rows = pipeline.read("rows", parquet("memory://nested/nothing/*.parquet"));
    rows.named("copy")
        .write(json_lines_sink("memory://nested/nothing"));
    expect![[r#"
        2 errors
        1. sink "copy" writes over what source "rows" reads
             The sink writes to "memory://nested/nothing", the source reads "memory://nested/nothing".
             Hint: Write to another place; what was read can be removed after the run.
        2. no file matches "memory://nested/nothing/*.parquet"
             in source "rows"
             Hint: Check the pattern; hidden files are passed over."#]].assert_eq(&refused(&pipeline));
}
