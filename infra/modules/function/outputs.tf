# Who is given this may call the function: it waits until the function and its rights exist.
output "function" {
  value      = { arn = local.arn, name = local.name, timeout = var.size.timeout }
  depends_on = [aws_lambda_function.function]
}

output "role_arn" {
  value = aws_iam_role.function.arn
}

output "policies" {
  value = keys(var.policies)
}
