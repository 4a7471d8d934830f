# Plans what the local cloud never applies: signed requests, a VPC, TLS only, Glacier. Nothing is asked of AWS.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }

  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
}

variables {
  opensearch_url = "https://search.example.com"
  mail_from      = "alert-archive@example.com"
  mail_to        = ["operations@example.com"]

  # One that exists, because the ARN of a new secret is known only when it is made: its policy would be unknown here.
  database_secret_arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:database-AbCdEf"
}

run "on_aws_everything_is_protected" {
  command = plan

  variables {
    alarm_mails             = ["on-call@example.com"]
    archive_transition_days = 90
    dashboard_url           = "https://dashboard.example.com"
  }

  assert {
    condition     = module.storage.bucket == "alert-archive-archive-123456789012"
    error_message = "The bucket's name must carry the account id."
  }

  assert {
    condition     = !contains(keys(local.archive_functions["collect-windows"].environment), "ALERT_ARCHIVE_SOURCE_GB_MONTH")
    error_message = "Where no price of the source is given, mail and page say that theirs is assumed."
  }
}

run "a_price_of_the_source" {
  command = plan

  variables {
    source_gb_month = 0.1
  }

  assert {
    condition     = local.archive_functions["collect-windows"].environment.ALERT_ARCHIVE_SOURCE_GB_MONTH == "0.1"
    error_message = "Mail and page tell by it what can be saved."
  }
}

run "a_price_below_zero_is_refused" {
  command = plan

  variables {
    source_gb_month = -1
  }

  expect_failures = [var.source_gb_month]
}

run "signed_requests_from_a_vpc" {
  command = plan

  variables {
    opensearch_auth       = "iam"
    opensearch_domain_arn = "arn:aws:es:us-east-1:123456789012:domain/messages"
    vpc                   = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
  }

  assert {
    condition     = toset([for name, function in module.archive_function : name if contains(function.policies, "source")]) == toset(["plan-windows", "query-messages"])
    error_message = "The two functions that read the source sign, and no other."
  }
}

run "recent_messages_from_an_api" {
  command = plan

  variables {
    message_source = "hybrid"
    api_url        = "https://messages.example.com/v1"
    api_secret_arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:messages-api-AbCdEf"
  }

  assert {
    condition     = toset([for name, function in module.archive_function : name if contains(function.policies, "api")]) == toset(["plan-windows", "query-messages"])
    error_message = "The two functions that read the source may read the API's secret, and no other."
  }

  assert {
    condition     = length(aws_secretsmanager_secret.api) == 0
    error_message = "No secret is created where one is given."
  }
}

run "a_password_from_a_secret" {
  command = plan

  variables {
    opensearch_auth       = "basic"
    opensearch_secret_arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:messages-AbCdEf"
  }

  assert {
    condition     = toset([for name, policies in local.source_policies : name if can(policies.source)]) == toset(["plan-windows", "query-messages"])
    error_message = "The two functions that read the source may read the secret, and no other."
  }

  assert {
    condition     = local.source_environment.ALERT_ARCHIVE_OPENSEARCH_SECRET_ID == var.opensearch_secret_arn
    error_message = "The functions are given the name of the secret, not its value."
  }
}

run "a_password_without_a_secret_is_refused" {
  command = plan

  variables {
    opensearch_auth = "basic"
  }

  expect_failures = [var.opensearch_secret_arn]
}

run "a_password_in_plain_text_is_refused" {
  command = plan

  variables {
    opensearch_url        = "http://search.example.com"
    opensearch_auth       = "basic"
    opensearch_secret_arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:messages-AbCdEf"
  }

  expect_failures = [var.opensearch_auth]
}

run "a_password_in_the_url_is_refused" {
  command = plan

  variables {
    opensearch_url = "https://reader:secret@search.example.com"
  }

  expect_failures = [var.opensearch_url]
}

run "iam_without_a_domain_is_refused" {
  command = plan

  variables {
    opensearch_auth = "iam"
  }

  expect_failures = [var.opensearch_domain_arn]
}

run "a_spool_shorter_than_redrive_is_refused" {
  command = plan

  variables {
    spool_retention_days = 14
  }

  expect_failures = [var.spool_retention_days]
}

run "feeds_under_a_key_have_a_replica" {
  command = plan

  variables {
    feeds_kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/feeds"
  }

  assert {
    condition = local.feeds_replication == {
      bucket_arn  = "arn:aws:s3:::alert-archive-feeds-replica-123456789012"
      kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/feeds"
    }
    error_message = "A key is no reason to go without a copy."
  }
}

run "feeds_under_a_key_need_the_key_of_a_replica_elsewhere" {
  command = plan

  variables {
    feeds_kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/feeds"
    feeds_replica_arn = "arn:aws:s3:::elsewhere"
  }

  expect_failures = [var.feeds_replica_kms_key_arn]
}

run "one_call_at_once_is_less_than_a_queue_starts" {
  command = plan

  variables {
    feeds_concurrency = 1
  }

  expect_failures = [var.feeds_concurrency]
}

run "types_of_the_warehouse_are_hives" {
  command = plan

  variables {
    warehouse_schema_file = "tests/types.yaml"
  }

  assert {
    condition = { for column in aws_glue_catalog_table.warehouse["fact_reading"].storage_descriptor[0].columns : column.name => column.type } == {
      reading_id = "bigint"
      read_at    = "timestamp"
      value      = "decimal(12,2)"
      values     = "array<decimal(12,2)>"
      grid       = "array<array<int>>"
      is_deleted = "boolean"
    }
    error_message = "Glue's types must be what its readers understand."
  }

  # Of names that stand twice the map above has one.
  assert {
    condition     = length(aws_glue_catalog_table.warehouse["fact_reading"].storage_descriptor[0].columns) == 6
    error_message = "A column of the key must not stand among the fact's others again."
  }
}

run "rds_with_a_secret_and_authorities_of_its_own" {
  command = plan

  variables {
    database_host    = "orders.cluster-abc.us-east-1.rds.amazonaws.com"
    database_name    = "orders"
    database_ca_file = "tests/authorities.pem"
  }

  assert {
    condition = { for name, value in local.warehouse_functions["ingest-tables"].environment : name => value if startswith(name, "ALERT_ARCHIVE_DATABASE_") && name != "ALERT_ARCHIVE_DATABASE_SECRET" } == {
      ALERT_ARCHIVE_DATABASE_HOST        = "orders.cluster-abc.us-east-1.rds.amazonaws.com"
      ALERT_ARCHIVE_DATABASE_PORT        = "5432"
      ALERT_ARCHIVE_DATABASE_NAME        = "orders"
      ALERT_ARCHIVE_DATABASE_AUTHORITIES = aws_s3_object.database_authorities[0].key
    }
    error_message = "What a secret of RDS does not say must reach the function."
  }
}
