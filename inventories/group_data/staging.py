"""Values of staging."""

# A branch, a tag or a commit of your app.
app_ref = "main"
app_workers = 2
