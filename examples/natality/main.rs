//! temp
mod births;
mod generator;
mod inputs;
use mainstem::prelude::*;
fn main() -> Result<()> {
    let run = RunOptions::new();
    let dir = std::path::Path::new("/tmp/births");
    let i = match std::env::args().nth(1) {
        Some(d) => inputs::Inputs::find(d.as_ref(), &run)?,
        None => inputs::Inputs::generate(dir, 1, 200_000, &run)?,
    };
    println!("{i:?}");
    let p = Pipeline::new("x");
    let [t, e] = i.train_and_eval(&p)?;
    let (s1, r1) = connectors::collect();
    let (s2, r2) = connectors::collect();
    t.write(s1);
    e.write(s2);
    println!("{}", p.plan()?.explain());
    let rep = p.run(&run)?;
    println!("{rep}");
    let p = Pipeline::new("y");
    let (s3, r3) = connectors::collect();
    i.all(&p)?.write(s3);
    p.run(&run)?;
    for r in [r1, r2, r3] {
        let b = r.take();
        println!(
            "{} {:?}",
            b.iter().map(|x| x.num_rows()).sum::<usize>(),
            b[0].schema()
        );
        println!("{}", mainstem::engine::testing::show(&b[0].slice(0, 3)));
    }
    Ok(())
}
