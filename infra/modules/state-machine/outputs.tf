output "arn" {
  value      = local.arn
  depends_on = [aws_sfn_state_machine.states]
}

output "name" {
  value = local.name
}

# Known before the state machine exists: its functions' policies name its executions.
output "executions_arn" {
  value = local.executions
}

output "role_arn" {
  value = aws_iam_role.states.arn
}
