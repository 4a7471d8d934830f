# What every state machine relies on, also in a partition that is not `aws`.

mock_provider "aws" {}

variables {
  deployment = {
    prefix             = "x"
    region             = "cn-north-1"
    account            = "123456789012"
    partition          = "aws-cn"
    log_retention_days = 30
    schedule_group     = "x"
    undelivered_arn    = "arn:aws-cn:sqs:cn-north-1:123456789012:x-undelivered"
  }
  name       = "archive-alerts"
  definition = "../statemachine/archive-alerts.asl.json"
  # Each function that the definition calls: GateRunArn is that of gate-run.
  functions = { for name in [
    for state in flatten(regexall("\\$\\{(\\w+)Arn\\}", file("../statemachine/archive-alerts.asl.json"))) :
    lower(join("-", regexall("[A-Z][a-z]+", state)))
    ] : name => { arn = "arn:aws-cn:lambda:cn-north-1:123456789012:function:x-${name}", name = "x-${name}", timeout = 60 }
  }
  max_concurrency = 7
}

run "the_definition_is_filled_in" {
  command = plan

  module {
    source = "./modules/state-machine"
  }

  assert {
    condition     = jsondecode(aws_sfn_state_machine.states.definition).States.Windows.MaxConcurrency == 7
    error_message = "The Map's concurrency is a setting."
  }

  assert {
    condition     = !strcontains(aws_sfn_state_machine.states.definition, "arn:aws:")
    error_message = "ARNs of another partition are left in the definition."
  }

  assert {
    condition     = jsondecode(aws_sfn_state_machine.states.definition).States.GateRun.Parameters.FunctionName == "arn:aws-cn:lambda:cn-north-1:123456789012:function:x-gate-run"
    error_message = "A Task calls the function of its name."
  }

  assert {
    condition = toset(flatten([
      for statement in jsondecode(aws_iam_role_policy.states.policy).Statement : statement.Resource if statement.Sid == "WatchChildren"
      ])) == toset([
      "arn:aws-cn:states:cn-north-1:123456789012:execution:x-archive-alerts:*",
      "arn:aws-cn:states:cn-north-1:123456789012:execution:x-archive-alerts/Windows:*",
    ])
    error_message = "A distributed map watches its children, and the console its map runs."
  }
}

run "a_function_must_end_before_its_task" {
  command = plan

  module {
    source = "./modules/state-machine"
  }

  variables {
    functions       = { gate-run = { arn = "arn:aws-cn:lambda:cn-north-1:123456789012:function:x-gate-run", name = "x-gate-run", timeout = 120 } }
    definition      = "tests/one_task.asl.json"
    max_concurrency = null
  }

  expect_failures = [aws_sfn_state_machine.states]
}

run "a_definition_of_another_workflow" {
  command = plan

  module {
    source = "./modules/state-machine"
  }

  variables {
    functions       = { gate-run = { arn = "arn:aws-cn:lambda:cn-north-1:123456789012:function:x-gate-run", name = "x-gate-run", timeout = 119 } }
    definition      = "tests/one_task.asl.json"
    max_concurrency = null
  }

  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.states.policy).Statement : statement.Sid] == ["Steps", "LogDelivery"]
    error_message = "A workflow without a map starts nothing."
  }
}

run "a_function_that_no_task_calls" {
  command = plan

  module {
    source = "./modules/state-machine"
  }

  variables {
    functions       = { spare = { arn = "arn:aws-cn:lambda:cn-north-1:123456789012:function:x-spare", name = "x-spare", timeout = 10 } }
    definition      = "tests/one_task.asl.json"
    max_concurrency = null
    substitutions   = { GateRunArn = "unused" }
  }

  expect_failures = [aws_sfn_state_machine.states]
}
