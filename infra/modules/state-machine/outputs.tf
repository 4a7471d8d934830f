output "arn" {
  description = "ARN of the state machine, which exists by then."
  value       = local.arn
  depends_on  = [aws_sfn_state_machine.states]
}

output "name" {
  description = "Name of the state machine."
  value       = local.name
}

# Known before the state machine exists: its functions' policies name its executions.
output "executions_arn" {
  description = "ARN of its executions, with a wildcard for their names."
  value       = local.executions
}

output "role_arn" {
  description = "Role of the state machine."
  value       = aws_iam_role.states.arn
}
