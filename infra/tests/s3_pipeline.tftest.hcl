# What every pipeline that begins with objects in a bucket relies on.

mock_provider "aws" {
  mock_resource "aws_sqs_queue" {
    defaults = { arn = "arn:aws:sqs:us-east-1:123456789012:queue" }
  }
}

variables {
  deployment = {
    prefix          = "x"
    region          = "us-east-1"
    account         = "123456789012"
    partition       = "aws"
    local           = false
    alarm_topic_arn = "arn:aws:sns:us-east-1:123456789012:x-alarms"
  }
  name      = "parcels"
  function  = { arn = "arn:aws:lambda:us-east-1:123456789012:function:x-open-parcels", name = "x-open-parcels", timeout = 60 }
  bucket    = "x-parcels"
  protected = true
}

run "only_the_bucket_may_send_and_only_what_failed_comes_again" {
  command = plan

  module {
    source = "./modules/s3-pipeline"
  }

  assert {
    condition = (
      jsondecode(aws_sqs_queue_policy.events.policy).Statement[0].Condition.ArnEquals["aws:SourceArn"] == ["arn:aws:s3:::x-parcels"] &&
      jsondecode(aws_sqs_queue_policy.events.policy).Statement[0].Principal.Service == "s3.amazonaws.com" &&
      length(jsondecode(aws_sqs_queue_policy.events.policy).Statement) == 1
    )
    error_message = "The queue takes events of its bucket and nothing else."
  }

  assert {
    condition     = aws_lambda_event_source_mapping.events.function_response_types == toset(["ReportBatchItemFailures"])
    error_message = "Without it one bad message brings its whole batch back."
  }

  assert {
    condition     = aws_sqs_queue.events.visibility_timeout_seconds == 360
    error_message = "A message stays hidden for six times the function's timeout."
  }

  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.queue)) == toset(["dead", "late"])
    error_message = "Operators hear of dead and of late messages."
  }
}

run "everything_can_be_set" {
  command = plan

  module {
    source = "./modules/s3-pipeline"
  }

  variables {
    kms_key_arn          = "arn:aws:kms:us-east-1:123456789012:key/1"
    batch_size           = 100
    batch_window_seconds = 20
    visibility_seconds   = 90
    receive_wait_seconds = 5
    max_receives         = 3
    max_concurrency      = 4
    prefix_filter        = "in/"
    lifecycle_rules      = { old = { prefix = "in/", expiration_days = 30 } }
  }

  assert {
    condition = (
      aws_lambda_event_source_mapping.events.batch_size == 100 &&
      aws_lambda_event_source_mapping.events.maximum_batching_window_in_seconds == 20 &&
      aws_lambda_event_source_mapping.events.scaling_config[0].maximum_concurrency == 4 &&
      aws_sqs_queue.events.visibility_timeout_seconds == 90 &&
      aws_sqs_queue.events.receive_wait_time_seconds == 5 &&
      aws_s3_bucket_notification.source.queue[0].filter_prefix == "in/"
    )
    error_message = "A setting is lost on its way."
  }
}

run "a_copy_elsewhere" {
  command = plan

  module {
    source = "./modules/s3-pipeline"
  }

  variables {
    replication = { bucket_arn = "arn:aws:s3:::x-copies" }
  }
}

run "a_copy_of_objects_under_a_key" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  variables {
    name        = "x-parcels"
    kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/1"
    replication = { bucket_arn = "arn:aws:s3:::x-copies", kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/2" }
  }

  assert {
    condition = (
      aws_s3_bucket_replication_configuration.bucket[0].rule[0].source_selection_criteria[0].sse_kms_encrypted_objects[0].status == "Enabled" &&
      aws_s3_bucket_replication_configuration.bucket[0].rule[0].destination[0].encryption_configuration[0].replica_kms_key_id == var.replication.kms_key_arn
    )
    error_message = "S3 passes over objects under a key where it is not told to copy them, and under which key."
  }

  assert {
    condition = { for statement in jsondecode(aws_iam_role_policy.replication[0].policy).Statement :
      join(",", statement.Action) => statement.Resource if startswith(statement.Action[0], "kms:") } == {
      "kms:Decrypt" = "arn:aws:kms:us-east-1:123456789012:key/1"
      "kms:Encrypt" = "arn:aws:kms:eu-west-1:123456789012:key/2"
    }
    error_message = "S3 reads under the source's key and writes under the destination's."
  }
}

run "a_copy_of_objects_under_a_key_needs_a_key" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  variables {
    name        = "x-parcels"
    kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/1"
    replication = { bucket_arn = "arn:aws:s3:::x-copies" }
  }

  expect_failures = [var.replication]
}

run "a_message_must_stay_hidden_while_its_call_runs" {
  command = plan

  module {
    source = "./modules/s3-pipeline"
  }

  variables {
    visibility_seconds = 59
  }

  expect_failures = [aws_sqs_queue.events]
}

run "a_large_batch_needs_a_window" {
  command = plan

  module {
    source = "./modules/s3-pipeline"
  }

  variables {
    batch_size = 11
  }

  expect_failures = [var.batch_window_seconds]
}
