"""Values of production."""

app_ref = "production"
app_workers = 4
journal_mib = 1024
