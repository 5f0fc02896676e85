//! The result: rows of named values, printed and written as JSON.

use std::path::Path;

use serde_json::{Value, json};

use crate::Plan;

/// All rows.
pub(crate) struct Table {
    plan: Plan,
    rows: Vec<Row>,
}

struct Row {
    item: String,
    name: String,
    /// What the specification promises of the ratio, as text.
    goal: String,
    values: Vec<(String, f64)>,
}

impl Row {
    fn value(&self, column: &str) -> Option<f64> {
        self.values.iter().find(|(name, _)| name == column).map(|(_, value)| *value)
    }

    /// Every Atoll column over workerd's.
    fn ratios(&self) -> Vec<(String, f64)> {
        let Some(base) = self.value("workerd").filter(|base| *base != 0.0) else { return vec![] };
        self.values
            .iter()
            .filter(|(name, _)| name != "workerd")
            .map(|(name, value)| (name.clone(), value / base))
            .collect()
    }
}

impl Table {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self { plan: plan.clone(), rows: vec![] }
    }

    /// Adds a row and says so at once: a long run should show that it lives.
    pub(crate) fn row(&mut self, item: &str, name: &str, goal: &str, values: &[(&str, f64)]) {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let row = Row { item: item.into(), name: name.into(), goal: goal.into(), values };
        eprintln!("{item} {name}: {:?}", row.values);
        self.rows.push(row);
    }

    /// The table for people.
    pub(crate) fn print(&self) {
        let columns = ["workerd", "atoll", "atoll in-process"];
        println!(
            "\n{:<6} {:<44} {:>12} {:>12} {:>16} {:>18}  goal for the ratio",
            "item", "what", columns[0], columns[1], columns[2], "atoll/workerd"
        );
        for row in &self.rows {
            let cell = |column: &str| row.value(column).map_or_else(String::new, show);
            let ratio =
                row.ratios().iter().map(|(_, ratio)| format!("{ratio:.2}")).collect::<Vec<_>>().join(" / ");
            println!(
                "{:<6} {:<44} {:>12} {:>12} {:>16} {:>18}  {}",
                row.item,
                row.name,
                cell(columns[0]),
                cell(columns[1]),
                cell(columns[2]),
                ratio,
                row.goal
            );
        }
    }

    /// The same for machines.
    pub(crate) fn write(&self, root: &Path) {
        let folder = root.join("bench-results");
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let map = |pairs: &[(String, f64)]| -> serde_json::Map<String, Value> {
                    pairs.iter().map(|(name, value)| (name.clone(), json!(value))).collect()
                };
                json!({
                    "item": row.item, "name": row.name, "goal": row.goal,
                    "values": map(&row.values), "ratios": map(&row.ratios()),
                })
            })
            .collect();
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let document = json!({
            "unix_seconds": time.map_or(0, |time| time.as_secs()),
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "plan": {
                "seconds": self.plan.seconds, "rounds": self.plan.rounds,
                "isolates": self.plan.isolates, "loads": self.plan.loads,
            },
            "rows": rows,
        });
        let path = folder.join("side-by-side.json");
        let written =
            std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, format!("{document:#}\n")));
        match written {
            Ok(()) => println!("\nwritten to {}", path.display()),
            Err(error) => eprintln!("could not write {}: {error}", path.display()),
        }
    }
}

fn show(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "no answer".into(),
        size if size >= 1_000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
