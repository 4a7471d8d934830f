# A state machine of any definition: its role and log, and the schedule that starts it.

locals {
  name       = "${var.deployment.prefix}-${var.name}"
  states     = "arn:${var.deployment.partition}:states:${var.deployment.region}:${var.deployment.account}"
  arn        = "${local.states}:stateMachine:${local.name}"
  executions = "${local.states}:execution:${local.name}:*"

  # `plan-windows` is the state `PlanWindows`, and `PlanWindowsArn` in the definition.
  by_state = { for name, function in var.functions : join("", [for word in split("-", name) : title(word)]) => function }
  known    = merge({ for state, function in local.by_state : "${state}Arn" => function.arn }, var.substitutions)

  # As faults name it: from the root of the project.
  place = trimprefix(var.definition, "${path.root}/../")

  # Filled in with nothing, so that the precondition below can say what is missing, and where.
  unknown = setsubtract(flatten(regexall("\\$\\{(\\w+)\\}", local.text)), keys(local.known))
  values  = merge({ for name in local.unknown : name => "" }, local.known)
  missing = [for name in local.unknown : endswith(name, "Arn") ? lower(join("-", regexall("[A-Z][a-z]+", trimsuffix(name, "Arn")))) : name]

  # The definition is valid JSON before templating: so variables stand in strings only, and numbers are replaced.
  text        = file(var.definition)
  written     = jsondecode(local.text)
  filled      = replace(templatefile(var.definition, local.values), "\"arn:aws:", "\"arn:${var.deployment.partition}:")
  concurrency = "/\"MaxConcurrency\": \\d+/"
  definition = (var.max_concurrency == null ? local.filled :
  replace(local.filled, local.concurrency, "\"MaxConcurrency\": ${var.max_concurrency}"))

  # States of the definition, of its maps and branches, and of those within these.
  outer = [local.written.States]
  inner = flatten([for states in local.outer : [for state in values(states) : [
    try([state.ItemProcessor.States], []), try([for branch in state.Branches : branch.States], []),
  ]]])
  innermost = flatten([for states in local.inner : [for state in values(states) : [
    try([state.ItemProcessor.States], []), try([for branch in state.Branches : branch.States], []),
  ]]])
  all = merge(concat(local.outer, local.inner, local.innermost)...)

  idle  = [for name in keys(local.by_state) : name if !contains(keys(local.all), name)]
  hasty = [for name, function in local.by_state : name if contains(keys(local.all), name) && try(local.all[name].TimeoutSeconds, 0) <= function.timeout]

  # Children of a distributed map are executions of this very state machine, under the map's label.
  labels = compact([for state in local.all : try(state.ItemProcessor.ProcessorConfig.Mode, "") == "DISTRIBUTED" ? state.Label : ""])

  statements = concat(
    length(var.functions) == 0 ? [] : [{
      Sid      = "Steps"
      Effect   = "Allow"
      Action   = ["lambda:InvokeFunction"]
      Resource = [for function in var.functions : function.arn]
    }],
    length(local.labels) == 0 ? [] : [
      {
        Sid      = "StartChildren"
        Effect   = "Allow"
        Action   = ["states:StartExecution"]
        Resource = [local.arn]
      },
      {
        Sid      = "WatchChildren"
        Effect   = "Allow"
        Action   = ["states:DescribeExecution", "states:StopExecution", "states:RedriveExecution"]
        Resource = concat([local.executions], [for label in local.labels : "${local.states}:execution:${local.name}/${label}:*"])
      },
    ],
    [{
      # Log deliveries have no resource type.
      Sid    = "LogDelivery"
      Effect = "Allow"
      Action = [
        "logs:CreateLogDelivery", "logs:GetLogDelivery", "logs:UpdateLogDelivery", "logs:DeleteLogDelivery",
        "logs:ListLogDeliveries", "logs:PutResourcePolicy", "logs:DescribeResourcePolicies", "logs:DescribeLogGroups",
      ]
      Resource = ["*"]
    }],
  )
}

resource "aws_cloudwatch_log_group" "executions" {
  # The prefix keeps the log's resource policy from growing with each state machine of the account.
  name              = "/aws/vendedlogs/states/${local.name}"
  retention_in_days = var.deployment.log_retention_days
}

resource "aws_iam_role" "states" {
  name = local.name

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "States"
      Effect    = "Allow"
      Principal = { Service = "states.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = var.deployment.account } }
    }]
  })
}

resource "aws_iam_role_policy" "states" {
  name   = "states"
  role   = aws_iam_role.states.id
  policy = jsonencode({ Version = "2012-10-17", Statement = local.statements })
}

resource "aws_iam_role_policy" "work" {
  count  = var.policy == null ? 0 : 1
  name   = "work"
  role   = aws_iam_role.states.id
  policy = templatefile(var.policy, var.policy_variables)
}

resource "aws_sfn_state_machine" "states" {
  name       = local.name
  role_arn   = aws_iam_role.states.arn
  definition = local.definition

  # Payloads hold keys and counts, never a message.
  logging_configuration {
    level                  = "ERROR"
    include_execution_data = true
    log_destination        = "${aws_cloudwatch_log_group.executions.arn}:*"
  }

  lifecycle {
    precondition {
      condition     = var.max_concurrency == null || length(regexall("\"MaxConcurrency\": \\d+", local.text)) > 0
      error_message = "The definition has no MaxConcurrency, written as the pattern above expects it."
    }

    precondition {
      condition     = length(local.unknown) == 0
      error_message = "${local.place} needs ${join(", ", local.missing)}: add it to the map of functions, or to the substitutions, in the file of infra/ that deploys this definition, or correct its name."
    }

    precondition {
      condition     = length(local.idle) == 0
      error_message = "${local.place} has no Task ${join(", ", local.idle)}, and its workflow has a function of that name: add the state, or take the function out of what the module is given."
    }

    # A timed-out Task leaves its function running, so the function must always end first.
    precondition {
      condition     = length(local.hasty) == 0
      error_message = "${local.place}: TimeoutSeconds of ${join(", ", local.hasty)} must be larger than the timeout of its function."
    }
  }

  depends_on = [aws_iam_role_policy.states, aws_iam_role_policy.work]
}

module "schedule" {
  source = "../schedule"
  count  = var.schedule == null ? 0 : 1

  deployment = var.deployment
  name       = local.name
  target_arn = local.arn
  action     = "states:StartExecution"
  schedule   = var.schedule

  depends_on = [aws_sfn_state_machine.states]
}
