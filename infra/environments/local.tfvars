# The local cloud. What depends on the machine comes from local/: endpoint, opensearch_url, package_dir.
local              = true
prefix             = "alert-archive"
region             = "us-east-1"
protected          = false
schedule_enabled   = false
mail_from          = "alert-archive@example.com"
mail_to            = ["operations@example.com"]
mail_to_by_kind    = { log_errors = ["developers@example.com"] }
write_jsonl        = true
write_message_json = true

# Four processes of each function are as much as a small machine has cores for.
max_concurrency = 4

# The local cloud runs functions as processes: a day's run must not leave weeks of logs.
log_retention_days = 1

# A build that failed comes again after its function's timeout: tests wait for that.
function_sizes = {
  build-warehouse = { memory = 3538, timeout = 60 }
}
