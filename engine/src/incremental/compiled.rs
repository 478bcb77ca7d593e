//! A program that fits its inputs: checked, and compiled for the runner.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion_expr::Expr;

use super::iterate::round_of;
use super::program::{Program, Step};
use crate::changelog::{diff_field, has_time, is_changelog, own_columns};
use crate::error::{Error, Result};
use crate::event_time::{EVENT_TIME, time_field};
use crate::expression::{Expression, col};
use crate::keys::plain_type;
use crate::ops::{Aggregation, Join, JoinColumn, JoinKind, Select, Side, check_key, join_columns};
use crate::transform::Transform;

/// A program whose steps fit each other and the inputs.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) steps: Vec<CompiledStep>,
    /// The step whose rows leave.
    pub(crate) last: usize,
    /// The columns that leave: those of the last step, when, by how much.
    pub(crate) output: SchemaRef,
    /// True if what leaves has an event time, since an input has one.
    pub(crate) has_time: bool,
    /// Of each input, whether its rows are changes.
    are_changes: Vec<bool>,
}

/// A step that fits those it reads.
#[derive(Debug)]
pub(crate) struct CompiledStep {
    /// What messages call it.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// The columns of its rows, without dictionaries.
    pub(crate) schema: SchemaRef,
    /// The step that iterates, where it stands inside of a loop: the innermost.
    pub(crate) in_loop: Option<usize>,
}

/// What a step does; numbers are those of steps before it.
#[derive(Debug)]
pub(crate) enum Kind {
    Input(usize),
    Variable {
        /// The rows that it begins with; `None` for none.
        initial: Option<usize>,
    },
    /// Rows that enter a loop each in its round.
    Enter {
        from: usize,
        /// An integer.
        round: Expression,
        /// How many rounds the loop may take.
        max_rounds: u64,
    },
    Select {
        from: usize,
        columns: Vec<Expression>,
        /// The places of the columns, where all are plain columns.
        places: Option<Vec<usize>>,
    },
    Filter {
        from: usize,
        predicate: Expression,
    },
    Join(Box<JoinPlan>),
    Aggregate {
        from: usize,
        aggregation: Arc<Aggregation>,
    },
    Distinct {
        from: usize,
    },
    Union {
        from: Vec<usize>,
    },
    Iterate {
        variable: usize,
        body: usize,
        /// How many rounds it may take.
        max_rounds: u64,
    },
}

/// How two steps are joined. The left one is the one whose unmatched rows may stay.
#[derive(Debug)]
pub(crate) struct JoinPlan {
    pub(crate) left: usize,
    pub(crate) right: usize,
    pub(crate) kind: Matches,
    pub(crate) left_keys: Keying,
    pub(crate) right_keys: Keying,
    /// The columns of the result as places in the columns of the left rows, followed by those of the right.
    pub(crate) places: Vec<usize>,
    /// The same where there is no left row, and nulls stand in its place: keys are then those of the right one.
    pub(crate) right_places: Vec<usize>,
    /// What must be true of a pair, over the columns of the result.
    pub(crate) filter: Option<Expression>,
}

/// Which rows a join gives, seen from its left side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Matches {
    /// All pairs that match.
    Pairs,
    /// And left rows that match none.
    PairsAndUnmatched,
    /// And rows of either side that match none.
    All,
    /// Left rows that match.
    Matched,
    /// Left rows that match none.
    Unmatched,
}

/// What rows are brought together by.
#[derive(Clone, Debug)]
pub(crate) struct Keying {
    pub(crate) keys: Vec<Expression>,
    /// The types in which they are compared.
    pub(crate) types: Vec<DataType>,
    /// The places of the keys, where all are plain columns of the type in which they are compared.
    pub(crate) places: Option<Vec<usize>>,
    /// Tells keyings of one step apart.
    pub(crate) text: String,
}

impl Compiled {
    /// Checks and compiles a program, with all columns of the inputs or without those that nothing reads.
    pub(crate) fn new(
        program: &Program,
        inputs: &[SchemaRef],
        leaves_out_unread: bool,
    ) -> Result<Self> {
        // What is wrong is told of all columns; without those that nothing reads, rows are smaller.
        let all = Self::of_columns(program, inputs, &|_, _| true)?;
        let read = program.columns_read();
        let is_read = |step: usize, column: &Field| {
            let columns = read[step].as_ref();
            columns.is_none_or(|columns| columns.contains(column.name()))
        };
        let mut n_unread = 0;
        for (step, of) in all.steps.iter().enumerate() {
            if matches!(of.kind, Kind::Input(_)) {
                let fields = of.schema.fields().iter();
                n_unread += fields.filter(|column| !is_read(step, column)).count();
            }
        }
        match leaves_out_unread && n_unread > 0 {
            false => Ok(all),
            true => Self::of_columns(program, inputs, &is_read),
        }
    }

    /// With those columns of inputs, by step, for which this is true.
    fn of_columns(
        program: &Program,
        inputs: &[SchemaRef],
        is_read: &dyn Fn(usize, &Field) -> bool,
    ) -> Result<Self> {
        let loops = program.loops();
        let mut steps: Vec<CompiledStep> = Vec::with_capacity(program.steps.len());
        for (n, step) in program.steps.iter().enumerate() {
            check_place(program, &loops, n)?;
            let compiled = compile(step, &steps, inputs, &|column| is_read(n, column));
            let (kind, schema) = compiled.map_err(|e| {
                e.with_detail(format!(
                    "It is in step {n} of the relation, {}.",
                    step.name()
                ))
            })?;
            let in_loop = loops[n];
            steps.push(CompiledStep {
                name: step.name(),
                kind,
                schema,
                in_loop,
            });
        }
        if loops[program.output].is_some() {
            return Err(left_its_loop());
        }
        put_together_what_is_selected(program, &mut steps);
        let has_time = inputs.iter().any(|input| has_time(input));
        let schema = &steps[program.output].schema;
        let mut fields = schema.fields().to_vec();
        if has_time {
            fields.push(time_field(EVENT_TIME));
        }
        fields.push(diff_field());
        for (n, field) in fields.iter().enumerate() {
            if fields[..n].iter().any(|f| f.name() == field.name()) {
                return Err(Error::pipeline(format!(
                    "column {:?} is that of the changelog",
                    field.name()
                ))
                .with_hint("Give the column of the relation another name with `select`."));
            }
        }
        Ok(Self {
            output: Arc::new(Schema::new(fields)),
            last: program.output,
            steps,
            has_time,
            are_changes: inputs.iter().map(|input| is_changelog(input)).collect(),
        })
    }
}

impl Compiled {
    /// The loops that a step stands in, from the innermost to the outermost.
    pub(crate) fn loops_of(&self, step: usize) -> Vec<usize> {
        let mut loops = Vec::new();
        let mut at = step;
        while let Some(inside) = self.steps.get(at).and_then(|step| step.in_loop) {
            loops.push(inside);
            at = inside;
        }
        loops
    }

    /// True if rows that a step gives may be there less often than not at all: rows of a changelog that are taken back
    /// before their additions, which come late, and what is made of them row by row.
    pub(crate) fn may_miss_rows(&self, step: usize) -> bool {
        match &self.steps[step].kind {
            Kind::Input(input) => self.are_changes.get(*input) == Some(&true),
            Kind::Select { from, .. } | Kind::Filter { from, .. } => self.may_miss_rows(*from),
            Kind::Join(plan) => self.may_miss_rows(plan.left) || self.may_miss_rows(plan.right),
            Kind::Union { from } => from.iter().any(|from| self.may_miss_rows(*from)),
            // Loops read no such rows.
            Kind::Variable { .. } | Kind::Enter { .. } | Kind::Iterate { .. } => false,
            Kind::Aggregate { .. } | Kind::Distinct { .. } => false,
        }
    }

    /// The columns of an input that are read; those of no input, where it is not.
    pub(crate) fn input_schema(&self, input: usize) -> SchemaRef {
        let of_input = |step: &&CompiledStep| matches!(step.kind, Kind::Input(n) if n == input);
        let step = self.steps.iter().find(of_input);
        step.map_or_else(
            || Arc::new(Schema::empty()),
            |step| Arc::clone(&step.schema),
        )
    }
}

/// Lets joins give only the columns that are selected of their pairs, where nothing else reads these: most of what is
/// put together would be taken apart again at once.
fn put_together_what_is_selected(program: &Program, steps: &mut [CompiledStep]) {
    let mut n_readers = vec![0; steps.len()];
    n_readers[program.output] += 1;
    for read in program.steps.iter().flat_map(Step::reads) {
        n_readers[read] += 1;
    }
    for n in 0..steps.len() {
        let (joins, rest) = steps.split_at_mut(n);
        let Some(selected) = rest.first_mut() else {
            return;
        };
        let Kind::Select {
            from,
            places: Some(places),
            ..
        } = &selected.kind
        else {
            continue;
        };
        let (from, join) = (*from, &mut joins[*from]);
        if let Kind::Join(plan) = &mut join.kind
            && plan.kind == Matches::Pairs
            && plan.filter.is_none()
            && n_readers[from] == 1
        {
            plan.places = places.iter().map(|place| plan.places[*place]).collect();
            join.schema = Arc::clone(&selected.schema);
            selected.kind = Kind::Union { from: vec![from] };
        }
    }
}

/// Refuses steps of a loop that are read outside of it, and one that does not read what enters.
fn check_place(program: &Program, loops: &[Option<usize>], n: usize) -> Result<()> {
    let is_after = loops[n].is_some_and(|inside| n > inside);
    match &program.steps[n] {
        Step::Variable { initial: None, .. } | Step::Enter { from: None, .. } => {
            Err(left_its_loop())
        }
        _ if is_after => Err(left_its_loop()),
        Step::Iterate {
            entered: Some(entered),
            body,
            ..
        } if !program.depends(*body, *entered) => Err(nothing_enters(n)),
        _ => Ok(()),
    }
}

fn nothing_enters(step: usize) -> Error {
    Error::pipeline("the rows that enter an iteration round by round are not read in it")
        .with_detail(format!("It is in step {step} of the relation, iterate."))
        .with_hint("Use the second relation that the body is given in place of the rows outside, or `iterate`.")
}

fn left_its_loop() -> Error {
    Error::pipeline("what goes round in an iteration is used outside of it")
        .with_hint("Use what `iterate` returns.")
}

fn compile(
    step: &Step,
    steps: &[CompiledStep],
    inputs: &[SchemaRef],
    is_read: &dyn Fn(&Field) -> bool,
) -> Result<(Kind, SchemaRef)> {
    let schema_of = |n: usize| &steps[n].schema;
    Ok(match step {
        Step::Input(n) => {
            let input = inputs
                .get(*n)
                .ok_or_else(|| Error::bug("an input is not there"))?;
            let schema = values_of(input, is_read);
            for field in schema.fields() {
                check_key(&col(field.name()), &schema, "cannot be compared")?;
            }
            (Kind::Input(*n), schema)
        }
        Step::Variable { initial, is_empty } => {
            let initial = initial.ok_or_else(left_its_loop)?;
            let schema = nullable(schema_of(initial));
            let initial = (!is_empty).then_some(initial);
            (Kind::Variable { initial }, schema)
        }
        Step::Enter {
            from,
            round,
            options,
        } => {
            let from = from.ok_or_else(left_its_loop)?;
            let schema = schema_of(from);
            let kind = Kind::Enter {
                from,
                round: round_of(round, schema)?,
                max_rounds: options.n_rounds(),
            };
            (kind, Arc::clone(schema))
        }
        Step::Select { from, columns } => select(*from, columns, schema_of(*from))?,
        Step::Filter { from, predicate } => {
            check_steady([predicate])?;
            let schema = schema_of(*from);
            let predicate = Expression::compile_predicate(predicate, schema)?;
            let kind = Kind::Filter {
                from: *from,
                predicate,
            };
            (kind, Arc::clone(schema))
        }
        Step::Join { left, right, join } => {
            join_plan(join, (*left, schema_of(*left)), (*right, schema_of(*right)))?
        }
        Step::Aggregate {
            from,
            keys,
            aggregates,
        } => {
            check_steady(keys.iter().chain(aggregates))?;
            let aggregation = Aggregation::new(keys, aggregates, schema_of(*from))?;
            let schema = Arc::clone(aggregation.output());
            let kind = Kind::Aggregate {
                from: *from,
                aggregation: Arc::new(aggregation),
            };
            (kind, schema)
        }
        Step::Distinct { from } => (Kind::Distinct { from: *from }, Arc::clone(schema_of(*from))),
        Step::Union { from } => {
            let first = schema_of(from[0]);
            for (n, other) in from.iter().enumerate().skip(1) {
                check_same(first, schema_of(*other), &format!("part {n} of a union"))?;
            }
            (Kind::Union { from: from.clone() }, nullable(first))
        }
        Step::Iterate {
            initial,
            variable,
            body,
            options,
            ..
        } => {
            let begin = schema_of(*initial);
            check_same(begin, schema_of(*body), "what an iteration makes")?;
            let kind = Kind::Iterate {
                variable: *variable,
                body: *body,
                max_rounds: options.n_rounds(),
            };
            (kind, nullable(begin))
        }
    })
}

/// The columns of an input but those that say when and by how much, without dictionaries: those that are read, or the
/// first of them where only how many rows there are is asked.
fn values_of(input: &SchemaRef, is_read: &dyn Fn(&Field) -> bool) -> SchemaRef {
    let mut own = own_columns(input);
    if has_time(input) {
        own.push(EVENT_TIME);
    }
    let values = input
        .fields()
        .iter()
        .filter(|f| !own.contains(&f.name().as_str()));
    let plain = values.map(|f| f.as_ref().clone().with_data_type(plain_type(f.data_type())));
    let all: Vec<Field> = plain.collect();
    let read: Vec<Field> = all.iter().filter(|f| is_read(f)).cloned().collect();
    let first = all.into_iter().take(1).collect();
    Arc::new(Schema::new(if read.is_empty() { first } else { read }))
}

fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter();
    let fields = fields.map(|f| f.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

pub(super) fn check_steady<'a>(expressions: impl IntoIterator<Item = &'a Expr>) -> Result<()> {
    match expressions.into_iter().find(|e| e.is_volatile()) {
        None => Ok(()),
        Some(expr) => Err(
            Error::pipeline(format!("`{expr}` may give another value each time"))
                .with_detail("A row that is taken back must be the row that was added."),
        ),
    }
}

fn check_same(first: &SchemaRef, other: &SchemaRef, what: &str) -> Result<()> {
    let same =
        |(a, b): (&FieldRef, &FieldRef)| a.name() == b.name() && a.data_type() == b.data_type();
    let n_fields = (first.fields().len(), other.fields().len());
    if n_fields.0 == n_fields.1 && first.fields().iter().zip(other.fields()).all(same) {
        return Ok(());
    }
    Err(Error::pipeline(format!("{what} has other columns"))
        .with_detail(format!("Expected: {first}."))
        .with_detail(format!("Found: {other}."))
        .with_hint("Bring them to the same columns with `select`."))
}

fn select(from: usize, columns: &[Expr], schema: &SchemaRef) -> Result<(Kind, SchemaRef)> {
    check_steady(columns)?;
    let made = Select::new(columns.iter().cloned()).output_schema(&[Arc::clone(schema)])?;
    let plain = made.fields().iter();
    let plain = plain.map(|f| f.as_ref().clone().with_data_type(plain_type(f.data_type())));
    let made = Arc::new(Schema::new(plain.collect::<Vec<Field>>()));
    for field in made.fields() {
        check_key(&col(field.name()), &made, "cannot be compared")?;
    }
    let compiled = columns.iter().map(|c| Expression::compile(c, schema));
    let kind = Kind::Select {
        from,
        columns: compiled.collect::<Result<_>>()?,
        places: columns.iter().map(|c| place_of(c, schema)).collect(),
    };
    Ok((kind, made))
}

/// The place of a column, where the expression is one.
fn place_of(expr: &Expr, schema: &SchemaRef) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.index_of(&column.name).ok(),
        Expr::Alias(alias) => place_of(&alias.expr, schema),
        _ => None,
    }
}

/// The plan of a join of two steps.
fn join_plan(
    join: &Join,
    left: (usize, &SchemaRef),
    right: (usize, &SchemaRef),
) -> Result<(Kind, SchemaRef)> {
    let (matches, swapped) = match join.kind() {
        JoinKind::Inner => (Matches::Pairs, false),
        JoinKind::Left => (Matches::PairsAndUnmatched, false),
        JoinKind::LeftSemi => (Matches::Matched, false),
        JoinKind::LeftAnti => (Matches::Unmatched, false),
        JoinKind::Right => (Matches::PairsAndUnmatched, true),
        JoinKind::RightSemi => (Matches::Matched, true),
        JoinKind::RightAnti => (Matches::Unmatched, true),
        JoinKind::Full => (Matches::All, false),
    };
    let columns = join_columns(join, left.1, right.1)?;
    check_steady(
        columns
            .keys
            .iter()
            .flat_map(|(l, r, _)| [l, r])
            .chain(join.residual()),
    )?;
    if join.residual().is_some() && join.kind() != JoinKind::Inner {
        return Err(Error::pipeline(
            "only an inner join of collections that change takes a filter",
        )
        .with_hint("Filter the sides before, or what is joined behind."));
    }
    let keying = |side: Side, schema: &SchemaRef| -> Result<Keying> {
        let mut keys = Vec::new();
        let mut places = Some(Vec::new());
        let mut text = String::new();
        let mut types = Vec::new();
        for (of_left, of_right, data_type) in &columns.keys {
            let expr = match side {
                Side::Left => of_left,
                Side::Right => of_right,
            };
            let key = Expression::compile(expr, schema)?;
            let place = place_of(expr, schema).filter(|_| key.data_type() == data_type);
            places = places
                .zip(place)
                .map(|(mut all, place): (Vec<usize>, usize)| {
                    all.push(place);
                    all
                });
            text.push_str(&format!("{expr} as {data_type}, "));
            types.push(data_type.clone());
            keys.push(key);
        }
        Ok(Keying {
            keys,
            types,
            places,
            text,
        })
    };
    let (of_left, of_right) = (keying(Side::Left, left.1)?, keying(Side::Right, right.1)?);
    let n_first = match swapped {
        false => left.1.fields().len(),
        true => right.1.fields().len(),
    };
    let place = |column: &JoinColumn, of_keys: Side| -> Result<usize> {
        let side = column.side.unwrap_or(of_keys);
        let (schema, is_first) = match side {
            Side::Left => (left.1, !swapped),
            Side::Right => (right.1, swapped),
        };
        let at = schema.index_of(&column.name)?;
        if schema.field(at).data_type() != column.field.data_type() {
            return Err(Error::pipeline(format!(
                "key {:?} is {} on the {} side, and {} in the result",
                column.name,
                schema.field(at).data_type(),
                side.name(),
                column.field.data_type()
            ))
            .with_hint("Bring both sides to one type with `cast` before a full join."));
        }
        Ok(at + if is_first { 0 } else { n_first })
    };
    let places = |of_keys: Side| -> Result<Vec<usize>> {
        columns
            .columns
            .iter()
            .map(|column| place(column, of_keys))
            .collect()
    };
    let fields: Vec<FieldRef> = columns
        .columns
        .iter()
        .map(|c| Arc::clone(&c.field))
        .collect();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let mut plan = JoinPlan {
        left: left.0,
        right: right.0,
        kind: matches,
        left_keys: of_left,
        right_keys: of_right,
        right_places: places(Side::Right)?,
        filter: join
            .residual()
            .map(|f| Expression::compile_predicate(f, &schema))
            .transpose()?,
        places: places(Side::Left)?,
    };
    if swapped {
        std::mem::swap(&mut plan.left, &mut plan.right);
        std::mem::swap(&mut plan.left_keys, &mut plan.right_keys);
    }
    Ok((Kind::Join(Box::new(plan)), schema))
}
