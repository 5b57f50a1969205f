-- Health of a TaskGraph for Argo CD. Progressing until the graph has ended.
local health = {status = "Progressing", message = "Waiting for the operator"}
local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end
local held = {}
for _, condition in ipairs(status.conditions) do
  if condition.status == "True" then
    held[condition.type] = condition
  end
end
if held.Stalled then
  health.status, health.message = "Degraded", held.Stalled.message
elseif held.Reconciling then
  health.message = held.Reconciling.message
elseif held.Failed then
  health.status, health.message = "Degraded", held.Failed.message
elseif held.Complete then
  health.status, health.message = "Healthy", "Complete, " .. status.progress
elseif held.Suspended then
  health.status, health.message = "Suspended", held.Suspended.message
else
  health.message = status.phase .. ", " .. status.progress
end
return health
