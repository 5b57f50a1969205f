//! The graphs of files, and the templates beside them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Result, anyhow, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    api::{TaskTemplateSpec, TemplateKind},
    cli::validate::{Content, Kind, Object, objects_of},
};

/// A graph as a file has it.
#[derive(Debug)]
pub struct Wanted {
    /// Where it belongs, if the file says so.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its spec, as it stands.
    pub spec: Value,
}

/// What is to be applied.
#[derive(Debug, Default)]
pub struct Files {
    /// The graphs, in the order of the files.
    pub graphs: Vec<Wanted>,
    /// The templates, by kind, namespace and name.
    pub templates: BTreeMap<(TemplateKind, Option<String>, String), Arc<TaskTemplateSpec>>,
}

impl Files {
    /// Reads files as `kubectl apply` would. `namespace`: the one of the command line, which objects may not contradict.
    pub fn read(filenames: &[PathBuf], recursive: bool, namespace: Option<&str>) -> Result<Self> {
        let mut files = Self::default();
        for filename in filenames {
            files.read_one(filename, recursive, namespace)?;
        }
        if files.graphs.is_empty() {
            bail!("there is no TaskGraph in what -f names");
        }
        Ok(files)
    }

    fn read_one(&mut self, filename: &Path, recursive: bool, namespace: Option<&str>) -> Result<()> {
        for (file, content) in objects_of(filename, recursive).map_err(|message| anyhow!(message))? {
            match content {
                Content::Ours(object) => self.take(object, namespace)?,
                Content::Other => {}
                Content::Broken(line, path, message) => bail!("{file}:{line}: {path} {message}"),
            }
        }
        Ok(())
    }

    fn take(&mut self, object: Object, asked: Option<&str>) -> Result<()> {
        let title = object.title();
        let Object { kind, namespace, name, node, .. } = object;
        if let (Some(own), Some(asked)) = (&namespace, asked)
            && own != asked
        {
            bail!("{title} is of namespace {own:?}, and --namespace says {asked:?}");
        }
        let Some(name) = name else { bail!("{title} has no name: it would be a new object each time") };
        let spec = node.to_json().get_mut("spec").map(Value::take).unwrap_or_default();
        match kind {
            Kind::Graph => self.graphs.push(Wanted { namespace, name, spec }),
            Kind::Template => {
                let namespace = namespace.or_else(|| asked.map(str::to_owned));
                self.templates.insert((TemplateKind::TaskTemplate, namespace, name), template(&title, &spec)?);
            }
            Kind::ClusterTemplate => {
                self.templates.insert((TemplateKind::ClusterTaskTemplate, None, name), template(&title, &spec)?);
            }
        }
        Ok(())
    }
}

fn template<T: DeserializeOwned>(title: &str, spec: &Value) -> Result<Arc<T>> {
    let read = serde_path_to_error::deserialize(spec);
    Ok(Arc::new(read.map_err(|error| anyhow!("{title}: spec.{}: {}", error.path(), error.inner()))?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HEAD: &str = "apiVersion: taskgraph.dev/v1alpha1\nkind: ";

    fn read(text: &str, namespace: Option<&str>) -> Result<Files> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Files::read(&[file.path().to_owned()], false, namespace)
    }

    #[test]
    fn several_objects_lists_and_namespaces() {
        let text = format!(
            "{HEAD}TaskGraph\nmetadata: {{name: a}}\nspec: {{tasks: []}}\n---\n\
             {HEAD}TaskTemplate\nmetadata: {{name: t}}\nspec: {{container: {{image: x}}}}\n---\n\
             apiVersion: v1\nkind: List\nitems:\n- {{apiVersion: taskgraph.dev/v1alpha1, kind: TaskGraph, metadata: {{name: b, namespace: other}}}}\n\
             - {{apiVersion: v1, kind: ConfigMap, metadata: {{name: c}}}}\n"
        );
        let files = read(&text, None).unwrap();
        let graphs: Vec<_> = files.graphs.iter().map(|one| (one.name.as_str(), one.namespace.as_deref())).collect();
        assert_eq!(graphs, [("a", None), ("b", Some("other"))]);
        assert!(files.templates.contains_key(&(TemplateKind::TaskTemplate, None, "t".to_owned())));
        let error = read(&text, Some("mine")).unwrap_err().to_string();
        assert_eq!(error, "TaskGraph/b is of namespace \"other\", and --namespace says \"mine\"");
    }

    #[test]
    fn what_cannot_be_compared_is_an_error() {
        for (text, expected) in [
            ("apiVersion: v1\nkind: ConfigMap\n".to_owned(), "there is no TaskGraph in what -f names"),
            (format!("{HEAD}TaskGraph\nmetadata: {{generateName: a-}}\n"), "TaskGraph/a- has no name"),
            (format!("{HEAD}TaskGrph\n"), "is no kind of taskgraph.dev/v1alpha1 (did you mean \"TaskGraph\"?)"),
            (
                format!("{HEAD}TaskTemplate\nmetadata: {{name: t}}\nspec: {{container: 3, priority: x}}\n"),
                "TaskTemplate/t: spec.",
            ),
            ("a: [".to_owned(), "line"),
        ] {
            let error = read(&text, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
