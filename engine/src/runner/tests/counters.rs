//! Counters add up at every node, whatever the graph.

use super::*;

/// One step of a random graph: which of the collections so far it reads, and what it does.
#[derive(Clone, Debug)]
enum Step {
    Filter(usize, i64),
    Divide(usize, i64),
    Letters(usize, i64),
    Split(usize),
    Union(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let from = || 0usize..16;
    prop_oneof![
        (from(), 0i64..7).prop_map(|(from, k)| Step::Filter(from, k)),
        (from(), 1i64..9).prop_map(|(from, m)| Step::Divide(from, m)),
        (from(), 1i64..9).prop_map(|(from, m)| Step::Letters(from, m)),
        from().prop_map(Step::Split),
        (from(), from()).prop_map(|(a, b)| Step::Union(a, b)),
    ]
}

/// Composes the graph; every collection is written, dead letters too.
fn compose(p: &Pipeline, source: Script, steps: &[Step]) -> (Vec<Basket>, Vec<Basket>) {
    let mut all = vec![p.read("numbers", source)];
    let mut letters = Vec::new();
    // A row has no quotient where its remainder by `m` is 0.
    let divide = |rows: &Collection, m: i64| {
        let quotient = lit(8i64) / (col("n") % lit(m));
        rows.filter((quotient).gt_eq(lit(0)))
    };
    for step in steps {
        let at = |i: &usize| all[i % all.len()].clone();
        match step {
            Step::Filter(from, k) => all.push(at(from).filter(col("k").gt_eq(lit(*k)))),
            Step::Divide(from, m) => all.push(divide(&at(from), *m).on_bad_row(OnBadRow::Drop)),
            Step::Letters(from, m) => {
                let divided = divide(&at(from), *m);
                letters.push(divided.dead_letters());
                all.push(divided);
            }
            Step::Split(from) => {
                let parts: [Collection; 2] = at(from).split_by_hash(col("n"), [("a", 1), ("b", 2)]);
                all.extend(parts);
            }
            Step::Union(a, b) => all.push(at(a).union(&[at(b)])),
        }
    }
    let write = |rows: &Collection| {
        let basket = Basket::default();
        rows.write(basket.clone());
        basket
    };
    (
        all.iter().map(write).collect(),
        letters.iter().map(write).collect(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn rows_in_are_rows_out_and_filtered_and_rejected(
        steps in prop::collection::vec(step(), 1..10),
        sizes in prop::collection::vec(1usize..50, 1..4),
        n_splits in 1usize..5,
        workers in 1usize..4,
    ) {
        let pipeline = Pipeline::new("test");
        let (rows, letters) = compose(&pipeline, Script::numbers(n_splits, &sizes), &steps);
        let report = pipeline.run(&options(workers)).unwrap();
        let nodes = &report.phases[0].nodes;
        for node in nodes.iter().filter(|n| n.kind != "basket") {
            prop_assert_eq!(
                node.rows_in,
                node.rows_out + node.filtered + node.rejected + node.late,
                "{:?}", node
            );
        }
        // What a node rejected is what its dead letters hold, where somebody reads them.
        let count = |basket: &Basket| -> u64 {
            let published = basket.published.lock().unwrap();
            published.iter().flatten().map(|r| r.num_rows() as u64).sum()
        };
        let written: u64 = rows.iter().chain(&letters).map(count).sum();
        let taken_in: u64 = nodes.iter().filter(|n| n.kind == "basket").map(|n| n.rows_in).sum();
        prop_assert_eq!(written, taken_in);
        let published: u64 = report.published.iter().map(|(_, p)| p.n_rows).sum();
        prop_assert_eq!(written, published);
        let dead: u64 = letters.iter().map(count).sum();
        let rejected: u64 = nodes.iter().map(|n| n.rejected).sum();
        prop_assert!(dead <= rejected);
    }
}
