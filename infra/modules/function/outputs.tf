# Who is given this may call the function: it waits until the function and its rights exist.
output "function" {
  description = "The function by its ARN and name, and its timeout in seconds."
  value       = { arn = local.arn, name = local.name, timeout = var.size.timeout }
  depends_on  = [aws_lambda_function.function]
}

output "role_arn" {
  description = "Role of the function."
  value       = aws_iam_role.function.arn
}

output "policies" {
  description = "Names of the policies of the role."
  value       = keys(var.policies)
}
