"""Values of production."""

# A branch, a tag or a commit of your app.
app_ref = "production"
app_workers = 4
journal_mib = 1024
