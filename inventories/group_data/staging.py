"""Values of staging."""

app_ref = "main"
app_workers = 2
