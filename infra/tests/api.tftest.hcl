# The REST API as a source. Nothing is asked of AWS.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }

  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
}

variables {
  mail_from = "alert-archive@example.com"
  mail_to   = ["operations@example.com"]
}

run "an_api_alone_needs_no_opensearch" {
  command = plan

  variables {
    message_source = "api"
    api_url        = "https://messages.example.com"
  }

  assert {
    condition     = length(aws_secretsmanager_secret.api) == 1
    error_message = "Where no secret is given, an empty one is created."
  }
}

run "a_token_in_plain_text_is_refused" {
  command = plan

  variables {
    message_source = "api"
    api_url        = "http://messages.example.com"
  }

  expect_failures = [var.api_url]
}

run "opensearch_alone_needs_its_address" {
  command = plan

  expect_failures = [var.opensearch_url]
}

run "each_kind_of_report_has_a_list_of_its_own" {
  command = plan

  variables {
    opensearch_url  = "https://search.example.com"
    mail_to_by_kind = { overdue = ["Night shift <on-call@example.com>"] }
  }

  assert {
    condition     = module.mail.recipients.overdue.name == "/alert-archive/mail/overdue" && length(distinct([for list in values(module.mail.recipients) : list.arn])) == 3
    error_message = "Each kind of report needs a parameter of its own."
  }

  assert {
    condition     = contains(module.mail.identity_arns, "arn:aws:ses:us-east-1:123456789012:identity/on-call@example.com")
    error_message = "In SES's sandbox every recipient needs rights, without the name that may stand beside the address."
  }
}

run "an_unknown_kind_of_report_is_refused" {
  command = plan

  variables {
    opensearch_url  = "https://search.example.com"
    mail_to_by_kind = { weekly = ["operations@example.com"] }
  }

  expect_failures = [var.mail_to_by_kind]
}
