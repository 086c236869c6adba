"""Where a dataset's pictures and tags come from: folders, tars, tables; a module a source."""
