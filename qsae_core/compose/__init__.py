"""From a RunConfig to live objects: the one place where the classes behind components are imported."""
