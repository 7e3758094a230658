//! Checks that everything in a descriptor set hangs together: imports, names, references. Pure.

use std::collections::HashMap;

use super::Flaw;
use super::scan::{File, Noun, Reference};

/// Checks imports, then names, then references.
pub(super) fn check(files: &[File<'_>]) -> Result<(), Flaw> {
    let mut index = HashMap::new();
    for (number, file) in files.iter().enumerate() {
        if index.insert(file.name, number).is_some() {
            return Err(Flaw::new(file.name, "is in the set twice"));
        }
    }
    let imports = files.iter().map(|file| imports(file, &index)).collect::<Result<Vec<_>, _>>()?;
    if let Some(number) = in_cycle(&imports) {
        let name = files.get(number).map(|file| file.name).unwrap_or_default();
        return Err(Flaw::new(name, "imports itself, through others"));
    }
    let names = names(files)?;
    for file in files {
        for reference in &file.references {
            resolve(file, reference, &names)?;
        }
    }
    Ok(())
}

fn imports(file: &File<'_>, index: &HashMap<&str, usize>) -> Result<Vec<usize>, Flaw> {
    let mut numbers = Vec::with_capacity(file.imports.len());
    let mut seen = std::collections::HashSet::new();
    for import in &file.imports {
        if *import == file.name {
            return Err(Flaw::new(file.name, "imports itself"));
        }
        if !seen.insert(import) {
            return Err(Flaw::new(file.name, format!("imports {import:?} twice")));
        }
        match index.get(import) {
            Some(number) => numbers.push(*number),
            None => return Err(Flaw::new(file.name, format!("imports {import:?}, which is not in the set"))),
        }
    }
    Ok(numbers)
}

/// A file that imports itself through others, if there is one: what is left when files without imports that are left are
/// taken away again and again (after Kahn).
fn in_cycle(imports: &[Vec<usize>]) -> Option<usize> {
    let mut importers = vec![Vec::new(); imports.len()];
    let mut left: Vec<usize> = imports.iter().map(Vec::len).collect();
    for (number, imported) in imports.iter().enumerate() {
        for one in imported {
            importers[*one].push(number);
        }
    }
    let mut free: Vec<usize> = (0..imports.len()).filter(|number| left[*number] == 0).collect();
    while let Some(number) = free.pop() {
        for importer in &importers[number] {
            left[*importer] -= 1;
            if left[*importer] == 0 {
                free.push(*importer);
            }
        }
    }
    // What is left is in a cycle or leads to one; whoever walks on for long enough walks in it.
    let first = left.iter().position(|left| *left > 0)?;
    (0..imports.len()).try_fold(first, |number, _| imports[number].iter().copied().find(|one| left[*one] > 0))
}

fn names<'a>(files: &'a [File<'_>]) -> Result<HashMap<&'a str, Noun>, Flaw> {
    let mut names: HashMap<&str, Noun> = HashMap::new();
    for file in files {
        for name in &file.names {
            if names.insert(&name.full, name.noun).is_some() {
                return Err(Flaw::new(file.name, format!("defines {}, which is defined already", name.full)));
            }
        }
    }
    Ok(names)
}

fn resolve(file: &File<'_>, reference: &Reference<'_>, names: &HashMap<&str, Noun>) -> Result<(), Flaw> {
    let flaw = |what: &str| {
        let separator = if reference.owner.is_empty() { "" } else { "." };
        let place = format!("{}: {}{separator}{}", file.name, reference.owner, reference.part);
        Err(Flaw::new(place, format!("refers to {:?}, {what}", reference.target)))
    };
    let Some(full) = reference.target.strip_prefix('.') else {
        return flaw("which is not a full name with a leading dot");
    };
    match (names.get(full), reference.wanted) {
        (None, _) => flaw("which is not in the set"),
        (Some(Noun::Message), None | Some(Noun::Message)) | (Some(Noun::Enum), None | Some(Noun::Enum)) => Ok(()),
        (Some(Noun::Message | Noun::Enum | Noun::Other), _) => flaw("which is something else"),
    }
}
