-- Nothing is needed: the tenant "default" comes with the migrations.
select 1;
