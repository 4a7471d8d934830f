# Tables for Athena, Spark and other readers of Glue: their columns follow from the schema file, and each reads the list
# of objects that the last build has left. `warehouse apply` of a file with other columns wants `terraform apply` with
# it too.

locals {
  warehouse_file = yamldecode(file(coalesce(var.warehouse_schema_file, "${path.root}/../fixtures/warehouse/orders.yaml")))

  catalogue_types = {
    boolean = "boolean", integer = "int", bigint = "bigint", double = "double", text = "string", json = "string"
    date    = "date", timestamp = "timestamp", timestamptz = "timestamp", bytes = "binary"
  }

  # Of each source, the types of its columns as they are written, without the spaces that a file may have in
  # `decimal(12, 2)`: readers of Glue do not bear them.
  catalogue_written = {
    for name, table in local.warehouse_file.tables : name => { for column, of in table.columns : column => replace(of, " ", "") }
  }

  # The same as Hive calls them; `integer[]` is a list, `integer[][]` a list of lists.
  catalogue_columns = {
    for name, columns in local.catalogue_written : name => {
      for column, of in columns : column => join("", concat(
        [for _ in regexall("\\[]", of) : "array<"],
        [lookup(local.catalogue_types, replace(of, "[]", ""), replace(of, "[]", ""))],
        [for _ in regexall("\\[]", of) : ">"],
      ))
    }
  }

  # The key's columns come first, as in crates/warehouse/src/table.rs.
  catalogue_keys = { for name, table in local.warehouse_file.tables : name => flatten([table.key]) }

  catalogue_dimensions = {
    for name, dimension in try(local.warehouse_file.dimensions, {}) : "dim_${name}" => concat(
      [["${name}_key", "bigint"]],
      [
        for column in distinct(concat(local.catalogue_keys[dimension.from], flatten([try(dimension.type1, [])]), flatten([try(dimension.type2, [])]))) :
        [column, local.catalogue_columns[dimension.from][column]]
      ],
      [["is_deleted", "boolean"]],
      length(flatten([try(dimension.type2, [])])) == 0 ? [] : [["valid_from", "timestamp"], ["valid_to", "timestamp"], ["is_current", "boolean"]],
    )
  }

  catalogue_facts = {
    for name, fact in try(local.warehouse_file.facts, {}) : "fact_${name}" => concat(
      [for column in local.catalogue_keys[fact.from] : [column, local.catalogue_columns[fact.from][column]]],
      [for role, _ in try(fact.dimensions, {}) : ["${role}_key", "bigint"]],
      [for role, _ in try(fact.dates, {}) : ["${role}_date_key", "int"]],
      [
        for column in flatten([try(fact.columns, [])]) : [column, local.catalogue_columns[fact.from][column]]
        if !contains(local.catalogue_keys[fact.from], column)
      ],
      [["is_deleted", "boolean"]],
    )
  }

  catalogue_dates = {
    dim_date = concat(
      [["date_key", "int"], ["date", "date"]],
      [for name in ["year", "quarter", "month", "day", "iso_week", "day_of_week"] : [name, "int"]],
      [["is_weekend", "boolean"]],
    )
  }

  catalogue = merge(local.catalogue_dimensions, local.catalogue_facts, try(local.warehouse_file.date_dimension, null) == null ? {} : local.catalogue_dates)
}

resource "aws_glue_catalog_table" "warehouse" {
  for_each      = local.catalogue
  database_name = aws_glue_catalog_database.logs.name
  name          = lower(each.key)
  table_type    = "EXTERNAL_TABLE"
  parameters    = { EXTERNAL = "TRUE", classification = "parquet" }

  storage_descriptor {
    location = "s3://${local.warehouse_bucket}/_tables/${each.key}/"
    # Reads the objects that a list names, so that a reader has all of a build or nothing of it.
    input_format  = "org.apache.hadoop.hive.ql.io.SymlinkTextInputFormat"
    output_format = "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat"

    ser_de_info {
      serialization_library = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
    }

    dynamic "columns" {
      for_each = each.value

      content {
        name = columns.value[0]
        type = columns.value[1]
      }
    }
  }
}
